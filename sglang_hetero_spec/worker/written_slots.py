"""Which KV slots each drafter has written for the token that the target keeps there.

Target KV is shared by all requests through the prefix cache, whoever computed it; a drafter's KV at those slots
exists only if that drafter read those tokens. A slot stands for one token after one prefix for as long as the
target does not write it again, so it is enough to know, of each draft KV pool and slot, which drafter wrote there last
(a base model and its adapters share a pool, and read the same token differently).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

NOBODY = -1


class WrittenSlots:
    """writers: [num_pools, num_slots] int16, number of the drafter or NOBODY."""

    def __init__(self, kv_pools: Sequence[int], num_slots: int, device: torch.device | str) -> None:
        """kv_pools: of each drafter, the number of its KV pool."""
        self._pools = torch.tensor(kv_pools, device=device)
        num_pools = max(kv_pools, default=-1) + 1
        self.writers = torch.full((num_pools, num_slots), NOBODY, dtype=torch.int16, device=device)

    @property
    def num_slots(self) -> int:
        return self.writers.shape[1]

    def add(self, kv_pool: int) -> None:
        """One more drafter, the last one, which writes into a KV pool that others have too."""
        self._pools = torch.cat((self._pools, self._pools.new_tensor([kv_pool])))

    def clear(self, slots: torch.Tensor) -> None:
        """The target has written `slots` anew: no drafter has."""
        self.writers.index_fill_(1, slots.flatten(), NOBODY)

    def mark(self, drafter: int | torch.Tensor, slots: torch.Tensor, written: torch.Tensor | None = None) -> None:
        """Drafter (a number, or some that broadcast with `slots`) has written there; nobody where not `written`."""
        writer = torch.as_tensor(drafter, device=slots.device).to(torch.int16)
        if written is not None:
            writer = torch.where(written, writer, NOBODY)
        self.writers[self._pools[drafter], slots] = writer

    def leading_run(self, drafter: int | torch.Tensor, slots: torch.Tensor, lens: list[int]) -> list[int]:
        """How many of each request's first tokens the drafter has read. slots: [b, >= max(lens)]; drafter: a number,
        or [b, 1]. Syncs."""
        bounds = torch.tensor(lens, device=slots.device)
        inside = torch.arange(slots.shape[1], device=slots.device) < bounds.unsqueeze(1)
        written = (self.writers[self._pools[drafter], slots.long()] == drafter) & inside
        return written.int().cumprod(dim=1).sum(dim=1).tolist()
