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

from sglang_hetero_spec.commands.output import BAD_INPUT
from sglang_hetero_spec.errors import HeteroError

_POLL_SECONDS = 0.2


class AlignmentsFailed(HeteroError):
    """No drafter could be made."""


class AlignmentsStopped(HeteroError):
    """An alignment broke off that may go on (a full disk, too little memory); the others are made."""


@dataclass(frozen=True)
class NotMade:
    """A drafter whose alignment failed, and the sentence that it failed with."""

    name: str
    reason: str


@dataclass(frozen=True)
class Alignments:
    """What all alignments of a build share. base: what they go on from; config: align.yaml; cache: of the target.

    tokenizer: of drafters without a base, None for the target's.
    """

    target: str
    base: str | None
    split: Path
    config: Path
    cache: Path
    logs: Path
    jobs: int | None
    tokenizer: str | None = None

    def arguments(self, job: Job) -> list[str]:
        """Of `hetero-spec align`."""
        which = ["--general"] if job.task is None else ["--task", job.task]
        base = [] if self.base is None else ["--base", self.base]
        if self.base is None and self.tokenizer is not None:
            base = ["--tokenizer", self.tokenizer]
        return [
            "align", "--target", self.target, "--answers", str(self.split / "train.jsonl"),
            "--heldout", str(self.split / "heldout.jsonl"), *which, *base, "--config", str(self.config),
            "--cache", str(self.cache), "--out", str(job.out),
        ]  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One drafter to make in `out`. task: None learns from all tasks."""

    name: str
    task: str | None
    out: Path


def align_all(shared: Alignments, jobs: Sequence[Job], say: Callable[[str], None]) -> list[NotMade]:
    """Make the drafters, the longest first; those that cannot be made come back with the reason.

    AlignmentsFailed if none could be made; AlignmentsStopped if the same call may make more of them.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    at_once = min(len(jobs), shared.jobs or max(1, cores // 2))
    threads = max(1, cores // at_once)
    shared.logs.mkdir(parents=True, exist_ok=True)
    failed: list[NotMade] = []
    stopped: list[NotMade] = []
    waiting, running = list(jobs), {}
    began = time.monotonic()
    with ExitStack() as stack:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                log = shared.logs / f"align-{job.name}.log"
                running[job.name] = stack.enter_context(_started(shared.arguments(job), log, threads))
            for name, process in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[name]
                outcome = "done"
                if code != 0:
                    item = NotMade(name, _last_sentence(shared.logs / f"align-{name}.log", code))
                    (failed if code == BAD_INPUT else stopped).append(item)
                    outcome = f"{'left out' if code == BAD_INPUT else 'broke off'}: {item.reason}"
                done = len(jobs) - len(waiting) - len(running)
                left = (time.monotonic() - began) / done * (len(jobs) - done)
                say(f"align: {name} {outcome} ({done} of {len(jobs)}, about {left / 60:.0f} min left)")
            time.sleep(_POLL_SECONDS)
    if stopped:
        raise AlignmentsStopped(f"The alignment of `{stopped[0].name}` broke off: {stopped[0].reason}")
    if len(failed) == len(jobs):
        raise AlignmentsFailed(f"No drafter could be aligned; {failed[0].name}: {failed[0].reason}")
    return failed


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
    if ours:
        return ours[-1]
    return (
        f"it ended with code {code}, {log} has what it said; run the same command again, with fewer --jobs if memory"
        " was short."
    )
