"""Runs whose costs and accept rates are known, in the files of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sglang_hetero_spec.bench.records import BlockRecord, RequestRecord, write_blocks, write_requests
from sglang_hetero_spec.bench.speed_model.costs import DRAFT, HOST, REST, TARGET, Costs
from sglang_hetero_spec.bench.speed_model.fit import own_job
from sglang_hetero_spec.bench.speed_model.run_folder import in_flight
from sglang_hetero_spec.bench.speed_model.simulate import simulate

TASKS = ("code", "sums", "talk")
DRAFTS = 4  # a step
COSTS = Costs(
    {
        TARGET: np.array([0.020, 0.005, 0.0010, 0.0]),
        HOST: np.array([0.0004, 0.0001]),
        REST: np.array([0.012, 0.0008, 0.0007, 0.0001]),
        **{DRAFT + task: np.array([0.002 * (1 + n), 0.0004, 1e-4]) for n, task in enumerate(TASKS)},
    }
)


@dataclass(frozen=True)
class MadeUp:
    """noise: relative, of every clock. counters: whether the server has any; step_counters: whether they tell the
    target's forwards and the host's work apart. server_of: by arm, where it is not one for all. read: how many times
    longer prompts are."""

    settings: tuple[str, ...] = ("c1", "c2", "c4", "c8")
    arms: tuple[str, ...] = ("none", "hetero", "hetero-random")
    repetitions: int = 2
    prompts: int = 24
    read: int = 1
    noise: float = 0.0
    counters: bool = True
    step_counters: bool = True
    histograms: bool = True
    costs: Costs = COSTS
    server_of: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        generator = np.random.default_rng(7)
        requests: list[RequestRecord] = []
        blocks: list[BlockRecord] = []
        for repetition in range(self.repetitions):
            for setting in self.settings:
                for arm in self.arms:
                    asked = self._requests(arm, setting, repetition)
                    done, block = self._serve(asked, arm, setting, repetition, len(blocks), generator)
                    requests += done
                    blocks.append(block)
        folder.mkdir(parents=True, exist_ok=True)
        write_requests(folder / "requests.jsonl", requests)
        write_blocks(folder / "blocks.jsonl", blocks)
        arms = [{"name": arm, "server": self.server_of.get(arm, "server")} for arm in self.arms]
        (folder / "metadata.json").write_text(json.dumps({"arms": arms}), encoding="utf-8")
        return folder

    def _requests(self, arm: str, setting: str, repetition: int) -> list[RequestRecord]:
        generator = np.random.default_rng(11)  # the same prompts and answers for every arm
        arrivals = np.zeros(self.prompts)
        if in_flight(setting) is None:
            arrivals = np.cumsum(generator.exponential(1 / float(setting[1:]), self.prompts))
        lengths = generator.integers(8, 90, (self.prompts, 2))
        # Every arm and repetition finds other numbers of drafts right, of the same law.
        drawn = np.random.default_rng([sum(arm.encode()), repetition])
        return [
            self._request(
                arm, setting, repetition, n, float(arrivals[n]), *map(int, lengths[n] * (self.read, 1)), drawn
            )
            for n in range(self.prompts)
        ]

    def _request(
        self,
        arm: str,
        setting: str,
        repetition: int,
        prompt: int,
        start: float,
        read: int,
        written: int,
        drawn: np.random.Generator,
    ) -> RequestRecord:
        task = TASKS[prompt % len(TASKS)]
        drafter = {"none": None, "hetero": task}.get(arm, TASKS[(prompt // len(TASKS)) % len(TASKS)])
        steps, histogram = (0, [0] * (DRAFTS + 1)) if drafter is None else _steps(written - 1, drafter == task, drawn)
        return RequestRecord(
            arm=arm,
            setting=setting,
            repetition=repetition,
            prompt=prompt,
            task=task,
            prompt_tokens=read,
            completion_tokens=written,
            start=start,
            seconds=0.0,
            ttft=None,
            chunks=[],
            verify_steps=None if drafter is None else steps,
            proposed=None if drafter is None else steps * DRAFTS,
            correct=None if drafter is None else sum(k * n for k, n in enumerate(histogram)),
            histogram=histogram if drafter is not None and self.histograms else None,
            drafter=drafter,
            confidence=None,
            source=None,
            output_ids=[],
            finish="length",
        )

    def _serve(
        self,
        asked: Sequence[RequestRecord],
        arm: str,
        setting: str,
        repetition: int,
        order: int,
        generator: np.random.Generator,
    ) -> tuple[list[RequestRecord], BlockRecord]:
        by_clock = in_flight(setting) is None
        trace = simulate([own_job(one, by_clock=by_clock) for one in asked], in_flight(setting), self.costs.seconds)
        off = generator.normal(1.0, self.noise, 3) if self.noise else np.ones(3)
        seconds = {part: float(self.costs.parts[part] @ trace.counts.of(part)) for part in trace.counts.parts}
        drafts = {part.removeprefix(DRAFT): off[1] * time for part, time in seconds.items() if part.startswith(DRAFT)}
        timed = seconds[TARGET] * off[0] + seconds[HOST] + sum(drafts.values())
        wall = timed + (seconds[REST] * off[2] if not by_clock else trace.busy - sum(seconds.values()) + seconds[REST])
        block = BlockRecord(
            arm=arm,
            setting=setting,
            repetition=repetition,
            order=order,
            seconds=wall,
            peak_load=None,
            draft_seconds=sum(drafts.values()) if self.counters else None,
            target_seconds=seconds[TARGET] * off[0] if self.counters and self.step_counters else None,
            host_seconds=seconds[HOST] if self.counters and self.step_counters else None,
            forwards=round(trace.counts.steps) if self.counters else None,
            route_seconds=None,
            routes=None,
            drafter_seconds=drafts if self.counters else None,
            kv_bytes=None,
            kv_used_tokens=None,
        )
        first = min(one.start for one in asked)
        return [
            RequestRecord(**{**vars(one), "start": one.start - first if by_clock else 0.0, "seconds": wait})
            for one, wait in zip(asked, trace.waits, strict=True)
        ], block


def _steps(tokens: int, right: bool, drawn: np.random.Generator) -> tuple[int, list[int]]:
    """Verify steps until `tokens` are committed, and their histogram."""
    histogram = [0] * (DRAFTS + 1)
    while tokens > 0:
        found = int(drawn.binomial(DRAFTS, 0.7 if right else 0.2))
        histogram[min(found, tokens - 1)] += 1
        tokens -= found + 1
    return sum(histogram), histogram
