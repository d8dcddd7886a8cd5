"""Pinned memory that attention plans are copied to the device from, a fresh piece for each plan.

A FlashInfer wrapper has one piece: its planner fills it on the host and queues the copy. A draft model plans the same
wrapper for every token of a chain without waiting for the device, and would fill it again before the last copy ran.
The plan on the device needs no such care: the copies and the graphs that read it are in one stream's order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch

# Plans that may be on their way to the device; a plan beyond waits for the first of them. 8 MiB of the host's memory
# each, which is what a wrapper takes (flashinfer 0.7.2, decode.py).
PIECES = 16


class Event(Protocol):
    """Of torch.cuda.Event."""

    def record(self) -> None: ...

    def synchronize(self) -> None: ...


class Staging:
    """Pieces are made when they are first needed, as large as the wrapper's own."""

    def __init__(self, make_event: Callable[[], Event] = torch.cuda.Event, num_pieces: int = PIECES) -> None:
        self._make_event, self._num_pieces = make_event, num_pieces
        self._pieces: list[tuple[torch.Tensor, Event]] = []
        self._next = 0

    @contextmanager
    def lent_to(self, wrappers: Sequence[Any]) -> Iterator[None]:
        """The wrappers' plans made in this block are copied from pieces that nothing waits for."""
        events = [self._lend(wrapper) for wrapper in wrappers]
        yield
        for event in events:
            event.record()

    def _lend(self, wrapper: Any) -> Event:
        if len(self._pieces) < self._num_pieces:
            own = wrapper._pin_memory_int_workspace_buffer
            self._pieces.append((torch.empty_like(own, pin_memory=own.is_pinned()), self._make_event()))
            piece, event = self._pieces[-1]
        else:
            piece, event = self._pieces[self._next]
            self._next = (self._next + 1) % self._num_pieces
            event.synchronize()
        wrapper._pin_memory_int_workspace_buffer = piece
        return event
