"""Spans around the stages of a verify step, inside a server's scheduler (benchmarks.step_profile puts them there).

A plugin of SGLang (group `sglang.srt.plugins`): when the scheduler is made it wraps the functions of `STAGES`, and
only then. Nothing of this is in a server that is not profiled. One line of JSON per step goes to HETERO_STEP_SPANS:
number of requests, drafters, and per stage [seconds, CPU seconds of this thread, calls], each without the stages in it.
While torch.profiler runs, every stage is a `record_function` too.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import time
from collections.abc import Callable
from typing import Any, TextIO

import torch

OUT = "HETERO_STEP_SPANS"
STEP = "other"
_WORKER = "sglang_hetero_spec.worker.hetero_worker"
_MERGED = "sglang_hetero_spec.worker.merged_input"
_VERIFY = "sglang.srt.speculative.eagle_worker_common"
_LLAMA = "sglang_hetero_spec.worker.cpu_llama"

# (module, attribute path, stage). What a version does not have is left out.
STAGES = (
    (_WORKER, "HeteroWorker._split", "split"),
    (_WORKER, "HeteroWorker._propose", "propose: loop"),
    (_WORKER, "HeteroWorker._draft_batch", "propose: draft batch"),
    (_WORKER, "draft_sampler", "propose: sampler"),
    ("sglang_hetero_spec.drafters.slots", "SlotsDrafter.propose", "propose: host"),
    ("sglang_hetero_spec.drafters.sorted", "SortedDrafter.propose", "propose: host"),
    ("sglang_hetero_spec.drafters.own_vocab", "OwnVocabDrafter.propose", "propose: host"),
    ("sglang_hetero_spec.drafters.ngram", "NgramDrafter.propose", "propose: n-grams"),
    ("sglang_hetero_spec.worker.draft_model", "SGLangDraftModel.catch_up", "read prompts: host"),
    # One graph or many launches: the forward, as far as it is the host's.
    ("sglang_hetero_spec.cuda.graphs.draft_graphs", "DraftGraphs.run", "propose: forward"),
    (_LLAMA, "CpuLlama.gather", "propose: gather KV"),
    (_LLAMA, "CpuLlama.read", "propose: forward"),
    (_LLAMA, "CpuLlama.read_layers", "propose: forward"),
    (_LLAMA, "CpuLlama.logits", "propose: forward"),
    (_WORKER, "combine_proposals", "combine"),
    (_WORKER, "merge_trees", "merge"),
    (_WORKER, "build_verify_input", "verify input, mask"),
    (_MERGED, "merge_trees", "merge"),
    (_MERGED, "merge_on_device", "merge"),
    (_MERGED, "build_verify_input", "verify input, mask"),
    (_WORKER, "run_eagle_verify", "SGLang: verify, rest"),
    (_VERIFY, "eagle_prepare_for_verify", "SGLang: prepare verify"),
    (_VERIFY, "eagle_sample", "accept"),
    (_WORKER, "HeteroWorker._commit", "commit"),
    (_WORKER, "HeteroWorker._record", "record"),
)
TARGET = "target forward"
CATCH_UP = "read prompts: forward"


class Spans:
    """Exclusive times of nested stages."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._stack: list[list[Any]] = []
        self._stages: dict[str, list[float]] = {}

    def wrap(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def spanned(*args: Any, **kwargs: Any) -> Any:
            if not self._stack:
                return function(*args, **kwargs)
            if torch.autograd._profiler_enabled():
                with torch.profiler.record_function(f"hetero: {stage}"):
                    return self._run(function, args, kwargs, stage)
            return self._run(function, args, kwargs, stage)

        return spanned

    def _run(self, function: Callable[..., Any], args: Any, kwargs: Any, stage: str) -> Any:
        inside = [0.0, 0.0]
        self._stack.append(inside)
        cpu, wall = time.thread_time(), time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
            self._stack.pop()
            row = self._stages.setdefault(stage, [0.0, 0.0, 0])
            row[0] += wall - inside[0]
            row[1] += cpu - inside[1]
            row[2] += 1
            if self._stack:
                self._stack[-1][0] += wall
                self._stack[-1][1] += cpu

    def step(self, function: Callable[..., Any], describe: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
        """The outermost span; its record is written behind it."""

        @functools.wraps(function)
        def spanned(*args: Any, **kwargs: Any) -> Any:
            self._stages, profiled = {}, torch.autograd._profiler_enabled()
            if profiled:
                with torch.profiler.record_function(f"hetero: {STEP}"):
                    result = self._run(function, args, kwargs, STEP)
            else:
                result = self._run(function, args, kwargs, STEP)
            line = {**describe(result, *args), "profiled": profiled, "stages": self._stages}
            self._out.write(json.dumps(line) + "\n")
            self._out.flush()
            return result

        return spanned


def register() -> None:
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    if os.environ.get(OUT):
        HookRegistry.register("sglang.srt.managers.scheduler.Scheduler.__init__", _first_instrument, HookType.AROUND)


def _first_instrument(original: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    instrument(Spans(open(os.environ[OUT], "a", encoding="utf-8")))  # noqa: SIM115 (open as long as the server)
    original(*args, **kwargs)


def instrument(spans: Spans) -> None:
    for module, path, stage in STAGES:
        owner, name = _owner(module, path)
        if owner is not None and hasattr(owner, name):
            setattr(owner, name, spans.wrap(getattr(owner, name), stage))
    from sglang.srt.managers.tp_worker import TpModelWorker
    from sglang.srt.model_executor.model_runner import ModelRunner

    TpModelWorker.forward_batch_generation = spans.wrap(TpModelWorker.forward_batch_generation, TARGET)
    ModelRunner.forward = _draft_only(ModelRunner.forward, spans.wrap(ModelRunner.forward, CATCH_UP))
    worker = importlib.import_module(_WORKER).HeteroWorker
    worker._decode = spans.step(worker._decode, _describe)


def _draft_only(plain: Callable[..., Any], spanned: Callable[..., Any]) -> Callable[..., Any]:
    def forward(runner: Any, *args: Any, **kwargs: Any) -> Any:
        return (spanned if runner.is_draft_worker else plain)(runner, *args, **kwargs)

    return forward


def _owner(module: str, path: str) -> tuple[Any, str]:
    *classes, name = path.split(".")
    try:
        owner = importlib.import_module(module)
    except ModuleNotFoundError:
        return None, name
    for one in classes:
        owner = getattr(owner, one)
    return owner, name


def _describe(result: Any, worker: Any, batch: Any, *_: Any) -> dict[str, Any]:
    drafters = sorted({number for several in result.hetero.drafters for number in several})
    return {
        "requests": len(batch.reqs),
        "drafters": [worker.drafters[number].spec.name for number in drafters],
        "proposed": int((result.cap_lens - 1).sum()),
        "accepted": int(result.accept_lens.sum()),
    }
