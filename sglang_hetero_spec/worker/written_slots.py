"""Which KV slots each drafter has written for the token that the target keeps there.

Target KV is shared by all requests through the prefix cache, whoever computed it; a drafter's KV at those slots
exists only if that drafter read those tokens. A slot stands for one token after one prefix for as long as the
target does not write it again, so one bit per drafter and slot says it all.
"""

from __future__ import annotations

import torch


class WrittenSlots:
    """flags: [num_drafters, num_slots] bool."""

    def __init__(self, num_drafters: int, num_slots: int, device: torch.device | str) -> None:
        self.flags = torch.zeros((num_drafters, num_slots), dtype=torch.bool, device=device)

    def clear(self, slots: torch.Tensor) -> None:
        """The target has written `slots` anew: no drafter has."""
        self.flags[:, slots] = False

    def mark(self, drafter: int | torch.Tensor, slots: torch.Tensor, written: torch.Tensor | None = None) -> None:
        """Drafter (a number, or one per slot) has written `slots`; only where `written`, if it is given."""
        self.flags[drafter, slots] = True if written is None else written

    def leading_run(self, drafter: int, slots: torch.Tensor, lens: list[int]) -> list[int]:
        """How many of each request's first tokens the drafter has read. slots: [b, >= max(lens)]. Syncs."""
        bounds = torch.tensor(lens, device=slots.device)
        inside = torch.arange(slots.shape[1], device=slots.device) < bounds.unsqueeze(1)
        written = self.flags[drafter, slots.long()] & inside
        return written.int().cumprod(dim=1).sum(dim=1).tolist()
