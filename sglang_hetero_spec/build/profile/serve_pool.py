"""What a finished pool does in a real server, task by task and mixed: to hold predictions against."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sglang_hetero_spec.build.profile.bench import Counts, EngineClock, Pass, Request
from sglang_hetero_spec.build.profile.engine import EngineSettings, Runner, check_flags, served
from sglang_hetero_spec.build.profile.measure import DEFAULTS, WARM_UP_TOKENS, ProfileOptions, Start, load_workload
from sglang_hetero_spec.build.profile.records import NONE, ProfileError
from sglang_hetero_spec.build.profile.workload import Workload
from sglang_hetero_spec.build.prompts import Prompt
from sglang_hetero_spec.commands.progress import Reporter
from sglang_hetero_spec.pool import Pool, load_pool

Routing = Literal["task", "router", "none"]


@dataclass(frozen=True)
class Traffic:
    """All passes of one kind of traffic. task: None where all tasks are mixed in one batch."""

    task: str | None
    concurrency: int
    passes: tuple[Pass, ...]

    @property
    def counts(self) -> Counts:
        return Counts.sum(one.counts for one in self.passes)

    @property
    def clock(self) -> EngineClock:
        return EngineClock(
            draft_seconds=sum(one.clock.draft_seconds for one in self.passes),
            verify_seconds=sum(one.clock.verify_seconds for one in self.passes),
            verify_forwards=sum(one.clock.verify_forwards for one in self.passes),
        )

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self.passes)

    @property
    def tokens_per_second(self) -> float:
        """Of the whole batch: sums before division."""
        return self.counts.completion_tokens / self.seconds

    @property
    def accept_length(self) -> float:
        """Completion tokens / verify steps."""
        return self.counts.completion_tokens / max(1, self.counts.verify_steps)


@dataclass(frozen=True)
class Measured:
    """tasks: each alone on the machine, by concurrency and task. mixed: all together, by concurrency."""

    tasks: tuple[Traffic, ...]
    mixed: tuple[Traffic, ...]

    def of(self, task: str | None, concurrency: int) -> Traffic:
        """The traffic of one task, or the mixed one (None); KeyError if it was not measured."""
        for one in self.tasks + self.mixed:
            if (one.task, one.concurrency) == (task, concurrency):
                return one
        raise KeyError((task, concurrency))


def measure_pool(
    target: str | Path,
    pool: str | Path,
    prompts: str | Path | Sequence[Prompt],
    options: ProfileOptions = DEFAULTS,
    *,
    alone: bool = True,
    routing: Routing = "task",
    traffic: Mapping[str, float] | None = None,
    reporter: Reporter | None = None,
    start: Start = served,
) -> Measured:
    """`measure_routings` of one routing."""
    found = measure_routings(
        target, pool, prompts, [routing], options, alone=alone, traffic=traffic, reporter=reporter, start=start
    )
    return found[routing]


def measure_routings(
    target: str | Path,
    pool: str | Path,
    prompts: str | Path | Sequence[Prompt],
    routings: Sequence[Routing],
    options: ProfileOptions = DEFAULTS,
    *,
    alone: bool = True,
    traffic: Mapping[str, float] | None = None,
    reporter: Reporter | None = None,
    start: Start = served,
) -> dict[Routing, Measured]:
    """Serve `pool` and send it the same prompts as `profile` would: each task alone (unless `alone` is False), then all
    mixed, pass by pass, every routing in turn.

    routings: `task` names each request's task, `router` leaves it to the pool's router, `none` drafts for nobody.
    traffic: shares of the requests in the mix (default: equal). HeteroError or ServingError as in `profile`.
    """
    target = str(target)
    check_flags(options.flags)
    checked = load_pool(pool, target=target)
    workload = load_workload(target, prompts, options)
    _check_tasks(checked, workload, "task" in routings, traffic)
    with tempfile.TemporaryDirectory(prefix="hetero-spec-profile-") as folder:
        settings = EngineSettings(
            target=target,
            longest=workload.longest + options.max_new_tokens,
            busiest=max(options.concurrency),
            flags=options.flags,
            log=Path(folder) / "pool.log",
        )
        with start(checked.root, settings) as runner:
            kinds = [*workload.tasks, None] if alone else [None]
            return _measure(runner, workload, options, kinds, routings, dict(traffic) if traffic else None, reporter)


def measure_mixed(
    target: str | Path,
    pool: str | Path,
    prompts: str | Path | Sequence[Prompt],
    concurrency: int,
    options: ProfileOptions = DEFAULTS,
    *,
    routing: Routing = "task",
    traffic: Mapping[str, float] | None = None,
    reporter: Reporter | None = None,
    start: Start = served,
) -> Traffic:
    """`measure_pool`, of the mixed traffic alone at one concurrency."""
    only = replace(options, concurrency=(concurrency,))
    found = measure_pool(
        target, pool, prompts, only, alone=False, routing=routing, traffic=traffic, reporter=reporter, start=start
    )
    return found.of(None, concurrency)


def _check_tasks(pool: Pool, workload: Workload, by_task: bool, traffic: Mapping[str, float] | None) -> None:
    known = [task.id for task in pool.tasks]
    for task in workload.tasks if by_task else ():
        if task not in known:
            raise ProfileError(
                f"The prompts have a task `{task}`, which {pool.root} does not know (it has"
                f" {', '.join(known) or 'none'}); give the prompts that the pool was made from."
            )
    if traffic is not None and not any(traffic.get(task, 0.0) > 0 for task in workload.tasks):
        raise ProfileError("The traffic gives no task of the prompts a weight; name them as the prompts do.")


def _measure(
    runner: Runner,
    workload: Workload,
    options: ProfileOptions,
    kinds: list[str | None],
    routings: Sequence[Routing],
    shares: dict[str, float] | None,
    reporter: Reporter | None,
) -> dict[Routing, Measured]:
    passes: dict[tuple[Routing, str | None, int], list[Pass]] = {}

    def batches(routing: Routing, task: str | None, concurrency: int, tokens: int) -> list[list[Request]]:
        alone = [] if task is None else [[(task, ids) for ids in workload.batch(task, concurrency)]]
        chosen = alone or workload.mixed(concurrency, shares)
        return [[Request(ids, _override(routing, name), tokens) for name, ids in batch] for batch in chosen]

    for concurrency in options.concurrency:
        for routing in routings:
            for batch in batches(routing, None, concurrency, min(options.max_new_tokens, WARM_UP_TOKENS)):
                runner.run(batch, concurrency)
    for number in range(options.passes):
        for concurrency in options.concurrency:
            in_turn = [(task, routing) for task in kinds for routing in routings]
            for task, routing in in_turn if number % 2 == 0 else reversed(in_turn):
                for batch in batches(routing, task, concurrency, options.max_new_tokens):
                    one = runner.run(batch, concurrency)
                    passes.setdefault((routing, task, concurrency), []).append(one)
                    if reporter is not None:
                        speed = one.counts.completion_tokens / one.seconds
                        reporter.line(f"{task or 'mixed'} ({routing}), {concurrency} in flight: {speed:.1f} tokens/s")
    return {routing: _measured(passes, routing) for routing in routings}


def _override(routing: Routing, task: str) -> dict[str, str] | None:
    if routing == "router":
        return None
    return {"task": task} if routing == "task" else {"drafter": NONE}


def _measured(passes: Mapping[tuple[Routing, str | None, int], list[Pass]], routing: Routing) -> Measured:
    found = [Traffic(task, number, tuple(mine)) for (of, task, number), mine in passes.items() if of == routing]
    return Measured(
        tuple(one for one in found if one.task is not None), tuple(one for one in found if one.task is None)
    )
