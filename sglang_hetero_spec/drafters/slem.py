"""`vocab: slem`: the drafter writes text, and the target's tokenizer reads it (arXiv 2502.05202, algorithm 2).

Of what it wrote the target's own tokens are the draft tree, verified like any other; siblings are distinct.
"""

from __future__ import annotations

import torch

from sglang_hetero_spec.cuda.transfer import from_host
from sglang_hetero_spec.drafters.growing import chain_room
from sglang_hetero_spec.drafters.opening import Chooser, Opening
from sglang_hetero_spec.drafters.own_vocab import OwnBatch, OwnVocabDrafter, Reading
from sglang_hetero_spec.drafters.sequences import Sequences
from sglang_hetero_spec.drafters.tree import NO_NODE, DraftTree
from sglang_hetero_spec.pool import DrafterSpec
from sglang_hetero_spec.vocab.boundary import Boundaries
from sglang_hetero_spec.vocab.draft_history import DraftHistory
from sglang_hetero_spec.vocab.incremental import Candidates, drafted_text, propose
from sglang_hetero_spec.vocab.intersection import NO_TOKEN
from sglang_hetero_spec.vocab.openings import Openings
from sglang_hetero_spec.vocab.pairing import Pairing


class SlemDrafter(OwnVocabDrafter):
    """spec.num_steps: draft tokens written at each step, and one more where the last committed one is written again;
    spec.num_draft_tokens: nodes of the tree, root included."""

    def __init__(self, spec: DrafterSpec, sequences: Sequences, pairing: Pairing) -> None:
        super().__init__(spec, sequences, room=chain_room(spec))
        self._pairing = pairing
        self._draft, self._target = Boundaries(pairing.draft), Boundaries(pairing.target)
        self._openings = Openings(pairing.draft, pairing.target.table)
        self._chooser = Chooser(self._openings, pairing.draft.table.pieces)

    def new_history(self) -> DraftHistory:
        return DraftHistory(self._draft, self._pairing.target.table, self._pairing.shared, self._openings)

    def draft(self, own: OwnBatch, logits: torch.Tensor) -> DraftTree:
        found = []
        for reading, drafts in zip(own.readings, self._write_on(own, logits), strict=True):
            reading.fed = drafts[:-1]
            reading.num_read += len(drafts) - 1
            found.append(self._candidates(reading, drafts))
        return _as_tree(found, own.roots, self.spec.num_draft_tokens)

    def _write_on(self, own: OwnBatch, logits: torch.Tensor) -> list[list[int]]:
        """Drafts of each request, [k][n]: the likeliest text, whether requests are sampled or not. Exact match is
        accepted as often as the target writes it, whatever it was drawn from."""
        starts = [self._opening(reading) for reading in own.readings]
        columns = [self._chooser.choose(logits, starts)]
        # What is held is written again, which is no draft.
        num_steps = self.spec.num_steps + any(reading.history.held for reading in own.readings)
        for step in range(1, num_steps):
            logits = self.sequences.model.read_next(own.batch, columns[-1], step)
            columns.append(self._chooser.choose(logits, starts))
        return torch.stack(columns, dim=1).tolist()

    def _opening(self, reading: Reading) -> Opening:
        return Opening(reading.history.held, self._pairing.target.table.piece(reading.context[-1]) or b"")

    def _candidates(self, reading: Reading, drafts: list[int]) -> Candidates:
        written = drafted_text(self._pairing.draft.table, drafts)
        end = None if written.end is None else int(self._pairing.shared.draft_to_target[written.end])
        return propose(
            self._target,
            reading.context,
            reading.history.new_text(written.data),
            max_depth=self.spec.num_draft_tokens - 1,
            max_nodes=self.spec.num_draft_tokens,
            end=None if end == NO_TOKEN else end,
        )


def _as_tree(found: list[Candidates], roots: torch.Tensor, width: int) -> DraftTree:
    """roots: [k] target ids. Nodes behind a request's own are padding."""
    nodes = []
    for each in found:
        missing = width - len(each.tokens)
        nodes.append([[*each.tokens, *[each.tokens[0]] * missing], [*each.parents, *[NO_NODE] * missing]])
    tokens, parents = from_host(torch.tensor(nodes), roots.device).unbind(1)
    return DraftTree(
        tokens=tokens,
        parents=parents,
        depth=max(_depth(each) for each in found),
        num_fed=0,
        num_proposed=tuple(len(each.tokens) - 1 for each in found),
    )


def _depth(candidates: Candidates) -> int:
    depths = [0]
    for parent in candidates.parents[1:]:
        depths.append(depths[parent] + 1)
    return max(depths)
