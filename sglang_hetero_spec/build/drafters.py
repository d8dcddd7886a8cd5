"""The alignments of a build: one process per drafter, a few at a time, each resumable by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sglang_hetero_spec.build.layout import GENERAL, Layout
from sglang_hetero_spec.build.recipe import Recipe
from sglang_hetero_spec.errors import HeteroError

_POLL_SECONDS = 0.2


class AlignmentsFailed(HeteroError):
    """No drafter could be made."""


@dataclass(frozen=True)
class NotMade:
    """A drafter whose alignment failed, and the sentence that it failed with."""

    name: str
    reason: str


def align_all(
    recipe: Recipe, layout: Layout, tasks: Sequence[str], config: Path, say: Callable[[str], None]
) -> list[NotMade]:
    """Make the general drafter and one for each task; those that failed come back with the reason.

    AlignmentsFailed if none could be made.
    """
    names = [GENERAL, *tasks]  # the longest first
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = min(len(names), recipe.jobs or max(1, cores // 2))
    threads = max(1, cores // jobs)
    logs = layout.stage("logs")
    logs.mkdir(parents=True, exist_ok=True)
    failed: list[NotMade] = []
    waiting, running = list(names), {}
    began = time.monotonic()
    with ExitStack() as stack:
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop(0)
                log = logs / f"align-{name}.log"
                running[name] = stack.enter_context(_started(_arguments(recipe, layout, name, config), log, threads))
            for name, process in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[name]
                if code != 0:
                    failed.append(NotMade(name, _last_sentence(logs / f"align-{name}.log", code)))
                done = len(names) - len(waiting) - len(running)
                left = (time.monotonic() - began) / done * (len(names) - done)
                outcome = f"left out: {failed[-1].reason}" if code != 0 else "done"
                say(f"align: {name} {outcome} ({done} of {len(names)}, about {left / 60:.0f} min left)")
            time.sleep(_POLL_SECONDS)
    if len(failed) == len(names):
        raise AlignmentsFailed(f"No drafter could be aligned; {GENERAL}: {failed[0].reason}")
    return failed


def _arguments(recipe: Recipe, layout: Layout, name: str, config: Path) -> list[str]:
    which = ["--general"] if name == GENERAL else ["--task", name]
    base = [] if recipe.base is None else ["--base", recipe.base]
    return [
        "align", "--target", recipe.target, "--answers", str(layout.split / "train.jsonl"),
        "--heldout", str(layout.split / "heldout.jsonl"), *which, *base, "--config", str(config),
        "--out", str(layout.drafter(name)),
    ]  # fmt: skip


class _started:
    """A child that ends with us, its output in a log; ended, if it still runs, when the block is left."""

    def __init__(self, arguments: list[str], log: Path, threads: int) -> None:
        self._arguments, self._log, self._threads = arguments, log, threads

    def __enter__(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "sglang_hetero_spec.serving.launch", str(os.getpid()), *self._arguments]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": str(self._threads)},
                start_new_session=True,
            )
        return self._process

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _last_sentence(log: Path, code: int) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    ours = [line.removeprefix("hetero-spec: ") for line in lines if line.startswith("hetero-spec: ")]
    return ours[-1] if ours else f"it ended with code {code}; {log} has what it said."
