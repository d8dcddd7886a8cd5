"""A stand-in for CUDA graphs: it keeps what was recorded and runs it again, on the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class RerunRecorder:
    """cuda.graphs.recorder.Recorder. backend: its plan of the moment belongs to what is recorded, as in a graph."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._recorded: dict[int, tuple[Callable[[], torch.Tensor], Any]] = {}

    def capture(self, size: int, forward: Callable[[], torch.Tensor], after_warm_up: Callable[[], None] | None) -> None:
        self._recorded[size] = forward, getattr(self._backend, "forward_metadata", None)
        forward()

    def replay(self, size: int) -> torch.Tensor:
        forward, metadata = self._recorded[size]
        self._backend.forward_metadata = metadata
        return forward()

    def clear(self) -> None:
        self._recorded.clear()
