"""The one server of a profile: how it is started, and whose fault it is when it does not start."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

from sglang_hetero_spec.build.profile.bench import Bench, Pass, Request
from sglang_hetero_spec.build.profile.records import ProfileError
from sglang_hetero_spec.pool.kinds import MAX_NUM_DRAFT_TOKENS
from sglang_hetero_spec.serving.errors import ServerEnded
from sglang_hetero_spec.serving.server import ServerPlan, running

# SGLang's own default for speculation, which HETERO takes over (algorithm.py).
MAX_RUNNING_REQUESTS = 48
TITLE = "the profile's server"
_LOADING = re.compile(r"HETERO: loading drafter (\S+) from")  # worker/loading.py
_LOADED = "HETERO memory"  # worker/budget.py
_OURS = ("--model-path", "--model", "--speculative-", "--host", "--port", "--config", "--nccl-port")


class Runner(Protocol):
    """What measures: a `Bench`, or a test's own."""

    def run(self, requests: Sequence[Request], concurrency: int) -> Pass: ...


class CandidateFailed(Exception):
    """The server ended while it loaded this entry of its pool; `str(error)` says how, in one sentence."""

    def __init__(self, entry: str, reason: str) -> None:
        super().__init__(reason)
        self.entry = entry


@dataclass(frozen=True)
class EngineSettings:
    """target: a checkpoint. longest: tokens of the longest request with its answer. busiest: requests in flight.

    flags: SGLang's own, as on its command line. log: what the server says; removed if all went well.
    """

    target: str
    longest: int
    busiest: int
    flags: tuple[str, ...]
    log: Path


@contextlib.contextmanager
def served(pool: Path, settings: EngineSettings) -> Iterator[Bench]:
    """A HETERO server with this pool. CandidateFailed or ServingError if it does not come up."""
    plan = ServerPlan(settings.log.stem, server_options(pool, settings, on_cpu(settings.flags)), title=TITLE)
    with contextlib.ExitStack() as stack:
        try:
            servers = stack.enter_context(running([plan], settings.log.parent))
        except ServerEnded as error:
            entry = culprit(error.log.read_text(encoding="utf-8", errors="replace"))
            if entry is not None:
                raise CandidateFailed(entry, str(error)) from None
            raise
        yield Bench(servers[plan.name])
    settings.log.unlink(missing_ok=True)


def check_flags(flags: Sequence[str]) -> None:
    """ProfileError for a flag that the profile itself must give."""
    for flag in flags:
        if flag.startswith(_OURS):
            raise ProfileError(f"`{flag.partition('=')[0]}` is set by the profile itself; leave it out.")


def on_cpu(flags: Sequence[str]) -> bool:
    """Whether a server with these flags runs on the CPU engine."""
    given = _given(flags)
    if "--device" in given:
        return given["--device"] == "cpu"
    import torch

    return not torch.cuda.is_available()


def context_flag(flags: Sequence[str]) -> int | None:
    """The value of --context-length, if it is there."""
    value = _given(flags).get("--context-length", "")
    return int(value) if value.isascii() and value.isdigit() and int(value) > 0 else None


def server_options(pool: Path, settings: EngineSettings, is_cpu: bool) -> tuple[str, ...]:
    """SGLang's command line: the user's flags, and what they leave open."""
    defaults: dict[str, str | None] = {
        "--log-level": "info",  # names each drafter before it loads
        "--decode-log-interval": "1000000",
        "--watchdog-timeout": "600",
        "--max-running-requests": str(max(MAX_RUNNING_REQUESTS, settings.busiest)),
    }
    if is_cpu:
        room = settings.longest + 3 * MAX_NUM_DRAFT_TOKENS
        # float32: the best two tokens are seldom equal, so that all drafters are measured on the same answers.
        defaults |= {
            "--device": "cpu",
            "--dtype": "float32",
            "--mem-fraction-static": "0.5",
            "--max-total-tokens": str(room * max(8, settings.busiest)),
            "--sleep-on-idle": None,
        }
    given = _given(settings.flags)
    options = ["--model-path", settings.target, "--enable-metrics"]
    options += ["--speculative-algorithm", "HETERO", "--speculative-draft-model-path", str(pool)]
    for flag, value in defaults.items():
        if flag not in given:
            options += [flag] if value is None else [flag, value]
    return (*options, *settings.flags)


def culprit(log: str) -> str | None:
    """The pool entry that was being loaded when the server ended; None if none was."""
    begun = list(_LOADING.finditer(log))
    if not begun or _LOADED in log[begun[-1].end() :]:
        return None
    return begun[-1].group(1)


def _given(flags: Sequence[str]) -> dict[str, str]:
    """flag -> its value ("" if it has none)."""
    found = {}
    for flag, after in zip_longest(flags, flags[1:], fillvalue=""):
        name, equals, value = flag.partition("=")
        if name.startswith("--"):
            found[name] = value if equals else "" if after.startswith("--") else after
    return found
