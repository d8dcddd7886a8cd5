"""Host seconds inside forwards, so that what a step takes beside them is known.

One thread launches all of them, on whatever stream, so seconds of drafters never overlap and add up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from sglang.srt.managers.tp_worker import TpModelWorker
    from sglang.srt.managers.utils import GenerationBatchResult

P = ParamSpec("P")
R = TypeVar("R")


class Stopwatch:
    """seconds: all that was timed so far. What is timed inside of something that is timed counts once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._is_running = False

    def timed(self, function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def watched(*args: P.args, **kwargs: P.kwargs) -> R:
            if self._is_running:
                return function(*args, **kwargs)
            start, self._is_running = time.perf_counter(), True
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start
                self._is_running = False

        return watched


# Of all draft models of this process, which has one worker: weights, attention, and the gathering of keys and values.
DRAFT_FORWARDS = Stopwatch()


class TimedTarget:
    """A target worker as SGLang's verification uses it; `watch` has the seconds of its forwards."""

    def __init__(self, worker: TpModelWorker) -> None:
        self.model_runner = worker.model_runner
        self.watch = Stopwatch()
        self._forward = self.watch.timed(worker.forward_batch_generation)

    def forward_batch_generation(self, *args: Any, **kwargs: Any) -> GenerationBatchResult:
        return self._forward(*args, **kwargs)
