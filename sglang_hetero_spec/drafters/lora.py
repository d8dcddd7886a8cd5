"""`lora`: a low-rank adapter on the model of a `standalone` drafter, which it drafts together with.

The base and all its adapters of one shape are one batch and one forward, whatever the mix of tasks; only the worker
knows how the products of the adapters are made (worker.lora). They write one KV pool, and the key of a token is not the
same under two adapters. So requests of different adapters share no cached prefix (worker.routing_hooks.cache_key), and
where slots change hands all the same (an adapter was unloaded) the new drafter reads again what another has written.
"""

from __future__ import annotations

from dataclasses import replace

from sglang_hetero_spec.drafters.base import DraftBatch, DraftModel
from sglang_hetero_spec.drafters.slots import SlotsDrafter
from sglang_hetero_spec.drafters.tree import DraftTree
from sglang_hetero_spec.pool import DrafterSpec


class LoraDrafter(SlotsDrafter):
    """model: that of the base. number: the drafter's in the pool."""

    def __init__(self, spec: DrafterSpec, model: DraftModel, max_seq_len: int | None = None, *, number: int) -> None:
        super().__init__(spec, model, max_seq_len)
        self.number = number

    def propose(self, batch: DraftBatch) -> DraftTree:
        if batch.drafters is None:
            batch = replace(batch, drafters=(self.number,) * len(batch.rows))
        return super().propose(batch)
