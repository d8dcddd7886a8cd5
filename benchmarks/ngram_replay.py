"""Accept lengths of n-gram proposals on given answers: verification is a walk along the answer, no model is asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sglang_hetero_spec.ngram.corpus import Corpus
from sglang_hetero_spec.ngram.drafting import Drafting
from sglang_hetero_spec.pool.entries.ngram import DEFAULT_CAPACITY


@dataclass
class Replay:
    """steps: verify steps. tokens: accepted, bonus tokens included. seconds: spent proposing."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def accept_length(self) -> float:
        return self.tokens / self.steps

    @property
    def milliseconds(self) -> float:
        return 1000 * self.seconds / self.steps


class Proposer(Protocol):
    def begin(self, rid: str, tokens: Sequence[int]) -> None:
        """tokens: the prompt, and the first token of the answer."""

    def propose(self, rid: str) -> tuple[Sequence[int], Sequence[int]]:
        """Tokens and parents of a tree, the root first."""

    def take(self, rid: str, new: Sequence[int]) -> None: ...

    def end(self, rid: str) -> None: ...


def replay(proposer: Proposer, rid: str, prompt: Sequence[int], answer: Sequence[int], into: Replay) -> None:
    start = time.perf_counter()
    proposer.begin(rid, [*prompt, answer[0]])
    into.seconds += time.perf_counter() - start
    at = 1
    while at < len(answer):
        start = time.perf_counter()
        tokens, parents = proposer.propose(rid)
        into.seconds += time.perf_counter() - start
        new = answer[at : at + accepted(tokens, parents, answer[at:])]
        into.steps += 1
        into.tokens += len(new)
        start = time.perf_counter()
        proposer.take(rid, new)
        into.seconds += time.perf_counter() - start
        at += len(new)
    proposer.end(rid)


def accepted(tokens: Sequence[int], parents: Sequence[int], answer: Sequence[int]) -> int:
    """How far the answer runs along the tree, and the bonus token."""
    children: dict[tuple[int, int], int] = {}
    for node in range(1, len(tokens)):
        children.setdefault((parents[node], tokens[node]), node)
    node, count = 0, 0
    while count < len(answer) and (node, answer[count]) in children:
        node = children[node, answer[count]]
        count += 1
    return min(count + 1, len(answer))


class Ours:
    def __init__(self, num_steps: int, topk: int, width: int, corpus: Corpus | None = None) -> None:
        self.drafting = Drafting(corpus or Corpus(DEFAULT_CAPACITY), num_steps, topk, width - 1)
        self._width = width

    def begin(self, rid: str, tokens: Sequence[int]) -> None:
        self.drafting.begin([rid])
        self.drafting.take(rid, tokens)

    def propose(self, rid: str) -> tuple[Sequence[int], Sequence[int]]:
        grown = self.drafting.propose(rid)
        assert len(grown.tokens) < self._width
        return [-1, *grown.tokens], [-1, *grown.parents]

    def take(self, rid: str, new: Sequence[int]) -> None:
        self.drafting.take(rid, new)

    def end(self, rid: str) -> None:
        self.drafting.release(rid)


class SGLangs:
    """SGLang's corpus as its NGRAM worker uses it (ngram_worker.py, without overlap), with its defaults.

    whole_prompts: also insert prompts, which the worker does not do.
    """

    def __init__(self, width: int, match_type: str = "BFS", whole_prompts: bool = False) -> None:
        from sglang.srt.speculative.cpp_ngram.ngram_corpus import NgramCorpus

        self._depth, self._width, self._whole = 18, width, whole_prompts
        self._corpus = NgramCorpus(
            min_bfs_breadth=1, max_bfs_breadth=10, match_type=match_type, capacity=4_000_000,
            max_trie_depth=self._depth, draft_token_num=width,
        )  # fmt: skip
        self._texts: dict[str, list[int]] = {}

    def begin(self, rid: str, tokens: Sequence[int]) -> None:
        self._texts[rid] = list(tokens)
        if self._whole:
            self._corpus.batch_put([list(tokens)])

    def propose(self, rid: str) -> tuple[Sequence[int], Sequence[int]]:
        self._corpus.synchronize()
        text = self._texts[rid]
        tokens, mask = self._corpus.batch_get([rid], [text[-self._depth :]], [len(text)])
        self._corpus.batch_put([text[-self._depth :]])
        nodes = np.arange(self._width)
        above = mask.reshape(self._width, self._width).astype(bool) & (nodes < nodes[:, None])
        parents = np.where(above.any(1), (above * nodes).argmax(1), -1)
        return tokens.tolist(), parents.tolist()

    def take(self, rid: str, new: Sequence[int]) -> None:
        self._texts[rid] += new

    def end(self, rid: str) -> None:
        self._corpus.erase_match_state([rid])
        del self._texts[rid]
