"""What the steps of benchmarks/gpu_run.py share: sizes, the engines at hand, the rows that are reported."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import gpu_models
from benchmarks.gpu_engines import Answer, Batch, EngineChild, arguments_of, cpu_arguments

# A first start builds kernels with nvcc (gpu-host/README.md: up to 67 s each, some at once).
START_SECONDS = 240


@dataclass(frozen=True)
class Row:
    """wanted: the value must be at least that much; None where it is only told. done_when: the number of issue 7's
    condition that it belongs to. is_detail: for the files, not for the table."""

    step: str
    what: str
    value: float | None
    wanted: float | None = None
    note: str = ""
    done_when: str = ""
    is_detail: bool = False

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "NOT RUN"
        if self.wanted is None:
            return ""
        return "met" if self.value >= self.wanted else "MISSED"


@dataclass(frozen=True)
class Scale:
    """batches: requests at once; prompt, tokens: of each request; rounds: that count, of each arm, in turns; contexts,
    widths: where both ways of verification are compared; most_engines: that fit beside each other."""

    target: gpu_models.Shape
    draft: gpu_models.Shape = gpu_models.DRAFT
    device: str = "cuda"
    batches: tuple[int, ...] = (1, 8, 32)
    prompt: int = 128
    tokens: int = 192
    rounds: int = 3
    contexts: tuple[int, ...] = (2048, 8192, 32768)
    widths: tuple[int, ...] = (8, 16, 64)
    page_sizes: tuple[int, ...] = (1, 16)
    most_engines: int = 5

    @property
    def largest(self) -> int:
        return max(self.batches)

    @property
    def max_total_tokens(self) -> int:
        """Of each engine: room for twice the largest batch."""
        return 2 * self.largest * (self.prompt + self.tokens + 64)


_TINY = gpu_models.Shape(hidden=128, layers=2, heads=4, kv_heads=2, inner=256, vocab_size=700, max_len=512)
# What the CPU engine runs through in minutes; its figures mean nothing.
DRY = Scale(
    target=_TINY,
    draft=_TINY,
    device="cpu",
    batches=(1, 4),
    prompt=24,
    tokens=16,
    rounds=1,
    page_sizes=(1,),
    most_engines=3,
)


@dataclass(frozen=True)
class Arm:
    """An engine. draft: `general`, or the name of a pool."""

    algorithm: str | None = None
    draft: str | None = None
    page_size: int = 1
    environ: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)


@dataclass
class Context:
    """switches: environment variables of HETERO's engines where an arm does not say otherwise."""

    out: Path
    scale: Scale
    deadline: float = 0.0
    made: gpu_models.Made | None = None
    engines: dict[str, EngineChild] = field(default_factory=dict)
    arms: dict[str, Arm] = field(default_factory=dict)
    ready: set[str] = field(default_factory=set)
    switches: dict[str, str] = field(default_factory=dict)

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    @property
    def is_dry(self) -> bool:
        return self.scale.device == "cpu"

    def models(self) -> gpu_models.Made:
        if self.made is None:
            root = self.out / "models"
            self.made = gpu_models.make(root, self.scale.target, self.scale.device, self.scale.draft)
        return self.made

    def prompts(self, tasks: Sequence[int], seed: int = 0) -> list[list[int]]:
        return gpu_models.prompts(self.scale.target.vocab_size, tasks, self.scale.prompt, seed=seed)

    def start(self, arms: dict[str, Arm]) -> None:
        """All at once: their starts are mostly imports. Others make room, those that came first before."""
        self.arms |= arms
        if self.is_dry:
            return
        self._make_room(set(arms))
        for name in arms:
            self._launch(name)
        for name in arms:
            self._wait(name)

    def ask(self, name: str, batch: Batch) -> Answer:
        return self.engine(name).ask(batch, max(self.left, 1.0))

    def engine(self, name: str) -> EngineChild:
        """One that answers no more is stopped, and started anew for whoever wants it next."""
        if name in self.engines and self.engines[name].is_lost:
            self.stop(name)
        if name not in self.engines:
            self._make_room({name})
            self._launch(name)
        self._wait(name)
        return self.engines[name]

    def _launch(self, name: str) -> None:
        if name in self.engines:
            return
        arm, made = self.arms[name], self.models()
        draft = None if arm.draft is None else made.general if arm.draft == "general" else made.pools[arm.draft]
        more = {"page_size": arm.page_size, "max_total_tokens": self.scale.max_total_tokens, **arm.more}
        arguments = arguments_of(made.target, arm.algorithm, draft, self.scale.largest, **more)
        if self.is_dry:
            arguments = cpu_arguments(arguments)
        environ = self.switches | arm.environ if arm.algorithm == "HETERO" else arm.environ
        self.engines[name] = EngineChild(name, arguments, self.out / f"{name}.log", environ)

    def _wait(self, name: str) -> None:
        if name not in self.ready:
            self.engines[name].wait_ready(max(1.0, self.left if self.is_dry else min(START_SECONDS, self.left)))
            self.ready.add(name)

    def _make_room(self, wanted: set[str]) -> None:
        others = [name for name in self.engines if name not in wanted]
        for name in others[: max(0, len(others) + len(wanted) - self.scale.most_engines)]:
            self.stop(name)

    def stop(self, name: str) -> None:
        self.engines.pop(name).stop()
        self.ready.discard(name)

    def drop_lost(self) -> None:
        """After a step that failed: engines that did not come up, or owe an answer."""
        for name in list(self.engines):
            if self.engines[name].is_lost or name not in self.ready:
                self.stop(name)

    def close(self) -> None:
        for name in list(self.engines):
            self.stop(name)


@dataclass(frozen=True)
class Step:
    """seconds: its box; it is not begun with less, and nothing of it is waited for longer. needs_cuda: not in a dry
    run."""

    name: str
    what: str
    seconds: float
    run: Callable[[Context], Iterator[Row]]
    needs_cuda: bool = False


def device_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def in_turns(context: Context, batches: dict[str, Batch]) -> dict[str, list[Answer]]:
    """Each arm's batch, the arms in turns, after one that is not counted. Names: of an arm, or `arm:what`."""
    found: dict[str, list[Answer]] = {name: [] for name in batches}
    for number in range(context.scale.rounds + 1):
        for name, batch in batches.items():
            answer = context.ask(name.split(":")[0], batch)
            if number:
                found[name].append(answer)
    return found


def rate(answers: list[Answer]) -> float:
    return sum(answer.tokens for answer in answers) / sum(answer.seconds for answer in answers)


def steps_rate(answers: list[Answer]) -> float:
    """Requests' verify steps per second: tokens per second at equal accept lengths."""
    return sum(answer.verify_steps or 0 for answer in answers) / sum(answer.seconds for answer in answers)


def accepted(found: dict[str, list[Answer]], *names: str) -> str:
    """For a note: accept lengths."""
    lengths = [found[name][0].accept_length for name in names]
    return "accept length " + " : ".join("-" if length is None else f"{length:.2f}" for length in lengths)
