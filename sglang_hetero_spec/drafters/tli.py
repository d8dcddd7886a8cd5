"""`vocab: tli`: drafts only what both vocabularies have (arXiv 2502.05202, algorithm 4).

The drafter's distribution is renormalised on the intersection: its LM head has no other rows. The target's is never
touched. What the target writes and the drafter has no token for is read as the drafter's spelling of its bytes.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from sglang_hetero_spec.drafters.growing import Columns, chain_room, grow
from sglang_hetero_spec.drafters.own_vocab import OwnBatch, OwnVocabDrafter
from sglang_hetero_spec.drafters.sequences import Fed, FedRow, Sequences
from sglang_hetero_spec.drafters.tree import DraftTree
from sglang_hetero_spec.pool import DrafterSpec
from sglang_hetero_spec.vocab.mapped_history import MappedHistory, Readings
from sglang_hetero_spec.vocab.pairing import Pairing


class TliDrafter(OwnVocabDrafter):
    """sequences.model must give logits of `pairing.shared.draft_ids` only, in this order."""

    def __init__(self, spec: DrafterSpec, sequences: Sequences, pairing: Pairing, device: torch.device | str) -> None:
        super().__init__(spec, sequences, room=chain_room(spec))
        shared = pairing.shared
        draft_ids = torch.from_numpy(shared.draft_ids.astype("int64"))
        target_ids = torch.from_numpy(shared.draft_to_target.astype("int64"))[draft_ids]
        self._columns = Columns(draft_ids.to(device), target_ids.to(device))
        self._draft_id_of = torch.from_numpy(shared.target_to_draft.astype("int64")).to(device)
        self._readings_of = Readings.of(shared, pairing.draft)

    def new_history(self) -> MappedHistory:
        return MappedHistory(self._readings_of)

    def draft(self, own: OwnBatch, logits: torch.Tensor) -> DraftTree:
        tree = grow(self.spec, self.sequences.model, own.batch, logits, own.roots, self._columns)
        if self.spec.topk == 1:
            # The last draft is proposed but not read.
            fed = Fed(self._draft_id_of[tree.tokens[:, 1:-1]])
            for i, reading in enumerate(own.readings):
                reading.fed = FedRow(fed, i)
                reading.num_read += self.spec.num_steps - 1
        return replace(tree, num_fed=0)
