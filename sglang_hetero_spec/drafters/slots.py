"""A draft model whose KV lies in the target's slots proposes a chain or a tree.

Slot i holds token i, so what the prefix cache keeps is shared by all requests.
"""

from __future__ import annotations

from collections.abc import Hashable

from sglang_hetero_spec.drafters.base import DraftBatch, Drafter, DraftModel
from sglang_hetero_spec.drafters.growing import grow
from sglang_hetero_spec.drafters.tree import DraftTree
from sglang_hetero_spec.pool import DrafterSpec


def window_of(spec: DrafterSpec) -> int:
    """Committed tokens read again at each step: those whose KV may be missing, and the root.

    A chain lacks at most its own last token, which was proposed but never fed; a tree lacks the whole accepted path.
    """
    return 2 if spec.topk == 1 else spec.num_steps + 1


class SlotsDrafter(Drafter):
    def __init__(self, spec: DrafterSpec, model: DraftModel, max_seq_len: int | None = None) -> None:
        super().__init__(spec)
        self.model = model
        self._max_seq_len = max_seq_len

    @property
    def max_seq_len(self) -> int | None:
        return self._max_seq_len

    @property
    def together(self) -> Hashable:
        """With its adapters (drafters.lora) and with drafters whose models are alike, where trees have the same shape:
        they are the same forwards."""
        return self.model.together, self.spec.num_steps, self.spec.topk, self.spec.num_draft_tokens

    @property
    def lane(self) -> Hashable:
        """Adapters have their base's model."""
        return id(self.model)

    def propose(self, batch: DraftBatch) -> DraftTree:
        window = max(window_of(self.spec), batch.lag + 1)
        if batch.newcomers:
            self.model.catch_up(batch, window)
        logits = self.model.read_window(batch, window)
        return grow(self.spec, self.model, batch, logits, batch.root_tokens)
