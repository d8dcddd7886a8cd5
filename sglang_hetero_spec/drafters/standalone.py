"""`standalone`: any causal language model with the target's vocabulary proposes a chain or a tree.

Its KV lies in the target's slots: slot i holds token i, so what the prefix cache keeps is shared by all requests.
"""

from __future__ import annotations

from sglang_hetero_spec.drafters.base import DraftBatch, Drafter, DraftModel
from sglang_hetero_spec.drafters.growing import grow
from sglang_hetero_spec.drafters.tree import DraftTree
from sglang_hetero_spec.pool import DrafterSpec


class StandaloneDrafter(Drafter):
    def __init__(self, spec: DrafterSpec, model: DraftModel, max_seq_len: int | None = None) -> None:
        super().__init__(spec)
        self.model = model
        self._max_seq_len = max_seq_len

    @property
    def max_seq_len(self) -> int | None:
        return self._max_seq_len

    @property
    def window(self) -> int:
        """Committed tokens read again at each step: those whose KV may be missing, and the root.

        A chain lacks at most its own last token, which was proposed but never fed; a tree lacks the whole
        accepted path.
        """
        return 2 if self.spec.topk == 1 else self.spec.num_steps + 1

    def propose(self, batch: DraftBatch) -> DraftTree:
        if batch.newcomers:
            self.model.catch_up(batch, self.window)
        logits = self.model.read_window(batch, self.window)
        return grow(self.spec, self.model, batch, logits, batch.root_tokens)
