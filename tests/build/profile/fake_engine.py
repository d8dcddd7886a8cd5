"""A server that counts as SGLang would, without one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from sglang_hetero_spec.build.profile.bench import Counts, EngineClock, Pass, Request
from sglang_hetero_spec.build.profile.engine import CandidateFailed, EngineSettings


class Killed(BaseException):
    """The process ends here."""


class FakeEngine:
    """A drafter of s steps finds the first s - 1 right, always; a forward takes 10 ms, a draft step 1 ms.

    broken: drafters (by their checkpoint's folder) that cannot be loaded. passes: how many are served before `Killed`,
    those that warm up included.
    """

    def __init__(self, broken: Sequence[str] = (), passes: int = 10**9, tokens: int | None = None) -> None:
        self.broken, self.passes, self.tokens = broken, passes, tokens
        self.starts: list[list[str]] = []
        self.runs: list[tuple[str, int, int, int]] = []  # drafter, requests, concurrency, max_new_tokens
        self.settings: EngineSettings | None = None
        self._steps: dict[str, int] = {}

    @contextlib.contextmanager
    def start(self, pool: Path, settings: EngineSettings) -> Iterator[FakeEngine]:
        drafters = json.loads((pool / "pool.json").read_text())["drafters"]
        self.settings = settings
        self.starts.append([drafter["name"] for drafter in drafters])
        for drafter in drafters:
            if Path(drafter.get("path", "/")).name in self.broken:
                raise CandidateFailed(drafter["name"], "it does not load; mend it.")
        self._steps = {
            drafter["name"]: min(drafter.get("num_steps", 0), drafter.get("num_draft_tokens", 65) - 1)
            for drafter in drafters
        }
        yield self

    def run(self, requests: Sequence[Request], concurrency: int) -> Pass:
        override = requests[0].override or {}
        name = override.get("drafter", override.get("task", ""))
        self.runs.append((name, len(requests), concurrency, requests[0].max_new_tokens))
        self.passes -= 1
        if self.passes < 0:
            raise Killed
        steps = self._steps.get(name, 0)
        correct = max(0, steps - 1)
        tokens = self.tokens or requests[0].max_new_tokens
        verify_steps = -(-(tokens - 1) // (correct + 1))
        one = Counts(1, verify_steps, verify_steps * steps, (0,) * correct + (verify_steps,), tokens)
        forwards = verify_steps * -(-len(requests) // concurrency)
        clock = EngineClock(0.001 * steps * forwards, 0.01 * forwards, forwards)
        return Pass((one,) * len(requests), clock, 0.002 + clock.draft_seconds + clock.verify_seconds)
