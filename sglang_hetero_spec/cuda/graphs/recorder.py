"""CUDA graphs of draft forwards, through SGLang's own capture: its memory pool, its stream, its collectives."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from sglang.srt.distributed.parallel_state import graph_capture
from sglang.srt.model_executor.runner.shape_key import ShapeKey
from sglang.srt.model_executor.runner_backend.full_cuda_graph_backend import FullCudaGraphBackend
from sglang.srt.model_executor.runner_utils.capture_mode import model_capture_mode
from sglang.srt.model_executor.runner_utils.pool import get_or_create_global_graph_capture_stream
from sglang.srt.runtime_context import get_exec


class Recorder(Protocol):
    """Records a function that reads and writes at fixed addresses, and plays it again."""

    def capture(self, size: int, forward: Callable[[], torch.Tensor], after_warm_up: Callable[[], None] | None) -> None:
        """forward is called more than once. after_warm_up: called after each call that is not the recorded one."""

    def replay(self, size: int) -> torch.Tensor:
        """What `forward` returned, with what the tensors hold now."""

    def clear(self) -> None:
        """Forget all sizes."""


class CudaRecorder:
    """One torch.cuda.CUDAGraph for each size. pool: a handle of memory that no other model's graphs use, which may then
    run beside these; None for SGLang's, where all share."""

    def __init__(self, pool: Any = None) -> None:
        self._pool = pool
        self._graphs = self._make()

    def _make(self) -> FullCudaGraphBackend:
        # All that SGLang's backend asks of a graph runner.
        runner = SimpleNamespace(device_module=torch.cuda, enable_profile_cuda_graph=False)
        graphs = FullCudaGraphBackend(runner, enable_memory_saver=get_exec().features.enable_memory_saver)
        if self._pool is not None:
            graphs._pool = self._pool
        return graphs

    def capture(self, size: int, forward: Callable[[], torch.Tensor], after_warm_up: Callable[[], None] | None) -> None:
        with (
            model_capture_mode(),
            graph_capture(stream=get_or_create_global_graph_capture_stream()) as capture,
            self._graphs.capture_session(capture.stream),
        ):
            self._graphs.capture_one(ShapeKey(size=size), forward, post_warmup_hook=after_warm_up)

    def replay(self, size: int) -> torch.Tensor:
        return self._graphs.replay(ShapeKey(size=size), None)

    def clear(self) -> None:
        self._graphs.cleanup()
        self._graphs = self._make()
