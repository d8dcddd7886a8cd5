"""`ngram`: no model. Drafts are what followed the same tokens before: in the request itself, its prompt included, in
what the target answered to others of this drafter's requests, and in a corpus given when the pool was made.

Everything happens on the host, so each step waits for the tokens that the last one committed: one small copy from the
device, as SGLang's NGRAM makes it.
"""

from __future__ import annotations

from typing import TypeVar

import torch

from sglang_hetero_spec.cuda.transfer import from_host
from sglang_hetero_spec.drafters.base import DraftBatch, Drafter
from sglang_hetero_spec.drafters.sequences import Committed
from sglang_hetero_spec.drafters.tree import NO_NODE, DraftTree
from sglang_hetero_spec.ngram.corpus import Corpus
from sglang_hetero_spec.ngram.drafting import Drafting
from sglang_hetero_spec.ngram.files import read_corpus
from sglang_hetero_spec.ngram.proposal import Grown
from sglang_hetero_spec.pool import DrafterSpec

# Tokens that a step commits as a rule; a request with more of them takes a second copy.
_USUAL = 16
# What a request that is drafted for again may have lost: SGLang drops steps in flight when it takes a request's memory.
_IN_FLIGHT = 256

T = TypeVar("T", int, float)


class NgramDrafter(Drafter):
    def __init__(self, spec: DrafterSpec, committed: Committed, num_ids: int) -> None:
        """num_ids: the target's."""
        super().__init__(spec)
        assert spec.capacity is not None, "a checked entry has one"
        self._committed = committed
        corpus = Corpus(spec.capacity)
        for text in () if spec.path is None else read_corpus(spec.path, num_ids):
            corpus.insert(text)
        self.drafting = Drafting(corpus, spec.num_steps, spec.topk, spec.num_draft_tokens - 1)

    @property
    def waits(self) -> bool:
        return True

    def propose(self, batch: DraftBatch) -> DraftTree:
        self.drafting.begin(batch.rids)
        for number in batch.newcomers:
            self.drafting.forget(batch.rids[number], _IN_FLIGHT)
        starts = [self.drafting.num_seen(rid) for rid in batch.rids]
        usual = max(_USUAL, self.spec.num_steps + 1)
        new = self._committed.behind(batch.rows, batch.seq_lens, starts, usual)
        for rid, tokens in zip(batch.rids, new, strict=True):
            self.drafting.take(rid, tokens)
        grown = [self.drafting.propose(rid) for rid in batch.rids]
        return as_tree(grown, batch.root_tokens, self.spec.num_draft_tokens, batch.wants_scores)

    def release(self, rid: str) -> None:
        self.drafting.release(rid)


def as_tree(grown: list[Grown], root_tokens: torch.Tensor, width: int, wants_scores: bool) -> DraftTree:
    """root_tokens: [b]. What a tree lacks to the width is padding."""
    counts = tuple(len(one.tokens) for one in grown)
    tokens = [_padded(0, one.tokens, 0, width) for one in grown]
    parents = [_padded(NO_NODE, one.parents, NO_NODE, width) for one in grown]
    scores = [_padded(0.0, one.scores, 0.0, width) for one in grown]
    both = from_host(torch.tensor([tokens, parents]), root_tokens.device)
    return DraftTree(
        tokens=torch.where(both[1] == NO_NODE, root_tokens.unsqueeze(1), both[0]),
        parents=both[1],
        depth=max(one.depth for one in grown),
        num_fed=0,
        scores=from_host(scores, root_tokens.device, torch.float32) if wants_scores else None,
        num_proposed=None if min(counts) == width - 1 else counts,
        is_chain=all(one.depth == width - 1 for one in grown),
    )


def _padded(root: T, nodes: list[T], padding: T, width: int) -> list[T]:
    return [root, *nodes, *[padding] * (width - 1 - len(nodes))]
