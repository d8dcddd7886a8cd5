"""`none`: do not speculate. The request takes part in the verify forward with its root alone."""

from __future__ import annotations

from sglang_hetero_spec.drafters.base import DraftBatch, Drafter
from sglang_hetero_spec.drafters.tree import DraftTree, chain


class NoneDrafter(Drafter):
    def propose(self, batch: DraftBatch) -> DraftTree:
        return chain(batch.root_tokens.unsqueeze(1), num_fed=0)
