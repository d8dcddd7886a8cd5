"""Which KV slots each drafter has written for the token that the target keeps there.

Target KV is shared by all requests through the prefix cache, whoever computed it; a drafter's KV at those slots
exists only if that drafter read those tokens. A slot stands for one token after one prefix for as long as the
target does not write it again, so it is enough to know, of each draft KV pool and slot, which drafter wrote there last
(a base model and its adapters share a pool, and read the same token differently).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sglang_hetero_spec.cuda.transfer import from_host, kept_on_device

NOBODY = -1


class WrittenSlots:
    """writers: [num_pools, num_slots] int16, number of the drafter or NOBODY.

    Drafters are numbers on the host: one, or one for each row of `slots`.
    """

    def __init__(self, kv_pools: Sequence[int], num_slots: int, device: torch.device | str) -> None:
        """kv_pools: of each drafter, the number of its KV pool."""
        self._pools = list(kv_pools)
        num_pools = max(kv_pools, default=-1) + 1
        self.writers = torch.full((num_pools, num_slots), NOBODY, dtype=torch.int16, device=device)

    @property
    def num_slots(self) -> int:
        return self.writers.shape[1]

    def add(self, kv_pool: int) -> None:
        """One more drafter, the last one, which writes into a KV pool that others have too."""
        self._pools.append(kv_pool)

    def clear(self, slots: torch.Tensor) -> None:
        """The target has written `slots` anew: no drafter has."""
        self.writers.index_fill_(1, slots.flatten(), NOBODY)

    def mark(self, drafters: int | Sequence[int], slots: torch.Tensor, written: torch.Tensor | None = None) -> None:
        """They have written there; nobody where not `written`."""
        writer = self._beside(drafters, slots, torch.int16)
        if written is not None:
            writer = torch.where(written, writer, kept_on_device((NOBODY,), slots.device, torch.int16))
        pool = self._pool(drafters, slots)
        if isinstance(pool, int):
            self.writers[pool][slots] = writer
        else:
            self.writers[pool, slots] = writer

    def leading_run(self, drafters: int | Sequence[int], slots: torch.Tensor, lens: list[int]) -> list[int]:
        """How many of each request's first tokens the drafter has read. slots: [b, >= max(lens)]. Syncs."""
        bounds = from_host(lens, slots.device)
        inside = torch.arange(slots.shape[1], device=slots.device) < bounds.unsqueeze(1)
        found = self.writers[self._pool(drafters, slots), slots.long()]
        written = (found == self._beside(drafters, slots, torch.int16)) & inside
        return written.int().cumprod(dim=1).sum(dim=1).tolist()

    def _pool(self, drafters: int | Sequence[int], slots: torch.Tensor) -> int | torch.Tensor:
        if isinstance(drafters, int):
            return self._pools[drafters]
        pools = [self._pools[number] for number in drafters]
        return pools[0] if len(set(pools)) == 1 else self._beside(pools, slots, torch.int64)

    @staticmethod
    def _beside(numbers: int | Sequence[int], slots: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """In a shape that broadcasts with the slots."""
        if isinstance(numbers, int):
            return kept_on_device((numbers,), slots.device, dtype)
        # Ranges of prompts are never the same twice.
        place = kept_on_device if slots.dim() > 1 else from_host
        return place(numbers, slots.device, dtype).view(-1, *[1] * (slots.dim() - 1))
