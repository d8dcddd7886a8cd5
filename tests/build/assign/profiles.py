"""Profiles made up at random, and an assignment found by looking at every one: written from the definitions alone.

Nothing here uses the package's model: the seconds of a record are divided, batch steps are enumerated slot by slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np

from sglang_hetero_spec.build.profile.records import ProfileRecord

Choice = tuple[tuple[str, tuple[int, int, int]], ...]  # of each task: drafter and settings
NOBODY = ("none", (0, 1, 1))


def record(
    drafter: str,
    task: str,
    num_steps: int,
    *,
    rate: float = 0.7,
    draft: float = 0.002,
    verify: float = 0.03,
    other: float = 0.0,
    concurrency: int = 1,
    requests: int = 8,
    tokens: int = 64,
    topk: int = 1,
    num_draft_tokens: int | None = None,
) -> ProfileRecord:
    """A record whose draft position i is right with the probability rate ** (i + 1); seconds per forward."""
    completion = requests * tokens
    mean = 1 + sum(rate ** (i + 1) for i in range(num_steps))
    steps = max(1, round(completion / mean))
    width = num_draft_tokens or num_steps + 1
    forwards = max(1, round(steps / min(concurrency, requests)))
    return ProfileRecord(
        drafter=drafter,
        task=task,
        num_steps=num_steps,
        topk=topk,
        num_draft_tokens=width,
        concurrency=concurrency,
        requests=requests,
        verify_steps=steps,
        proposed_drafts=steps * (width - 1),
        correct_by_position=tuple(int(steps * rate ** (i + 1)) for i in range(num_steps)),
        completion_tokens=completion,
        draft_seconds=draft * forwards,
        verify_seconds=verify * forwards,
        seconds=(draft + verify) * forwards + other * requests,
        verify_forwards=forwards,
    )


def random_profile(
    rng: np.random.Generator, max_tasks: int = 4, max_drafters: int = 4, concurrency: int = 1
) -> list[ProfileRecord]:
    """Some drafters good at some tasks, some settings, some of them slower than not speculating."""
    tasks = [f"t{i}" for i in range(rng.integers(1, max_tasks + 1))]
    tokens = {task: int(rng.integers(16, 200)) for task in tasks}
    records = []
    verify = float(rng.uniform(0.01, 0.05))
    for task in tasks:
        other = float(rng.uniform(0, 0.1))
        records.append(
            record("none", task, 0, draft=0.0, verify=verify, other=other, tokens=tokens[task], concurrency=concurrency)
        )
    for number in range(rng.integers(0, max_drafters + 1)):
        lengths = sorted(set(rng.integers(1, 7, size=rng.integers(1, 4)).tolist()))
        cost = float(rng.uniform(0.0005, 0.02))
        for length, task in product(lengths, tasks):
            records.append(
                record(
                    f"d{number}",
                    task,
                    length,
                    rate=float(rng.uniform(0.05, 0.95)),
                    draft=cost * length,
                    verify=verify * (1 + 0.05 * length),
                    other=float(rng.uniform(0, 0.1)),
                    tokens=tokens[task],
                    concurrency=concurrency,
                )
            )
    return records


def seconds_per_request(records: Iterable[ProfileRecord]) -> dict[tuple[str, str, tuple[int, int, int]], float]:
    """Seconds for the tokens that `none` gives in a request, by task, drafter and settings."""
    records = list(records)
    length = {item.task: item.completion_tokens / item.requests for item in records if item.drafter == "none"}
    return {
        (item.task, item.drafter, tuple(item.settings)): length[item.task] * item.seconds / item.completion_tokens
        for item in records
    }


def every_choice(
    records: Sequence[ProfileRecord],
    max_drafters: int | None = None,
    max_memory: int | None = None,
    memory: Mapping[str, int] | None = None,
) -> Iterable[tuple[list[str], Choice]]:
    """Every assignment that the budget allows, with the tasks in the order of the profile."""
    tasks = list(dict.fromkeys(item.task for item in records))
    options = [[(item.drafter, tuple(item.settings)) for item in records if item.task == task] for task in tasks]
    for choice in product(*options):
        used = {drafter: settings for drafter, settings in choice if drafter != "none"}
        if any(used.get(drafter, settings) != settings for drafter, settings in choice):
            continue
        if max_drafters is not None and len(used) > max_drafters:
            continue
        if max_memory is not None and sum((memory or {})[drafter] for drafter in used) > max_memory:
            continue
        yield tasks, choice


def brute_force(
    records: Sequence[ProfileRecord], traffic: Mapping[str, float] | None = None, **budget: object
) -> tuple[float, Choice]:
    """The most tokens per second, one request at a time, and one choice that has them."""
    seconds = seconds_per_request(records)
    length = {item.task: item.completion_tokens / item.requests for item in records if item.drafter == "none"}
    best = (0.0, ())
    for tasks, choice in every_choice(records, **budget):  # type: ignore[arg-type]
        weight = traffic or dict.fromkeys(tasks, 1.0)
        tokens = sum(weight[task] * length[task] for task in tasks)
        spent = sum(weight[task] * seconds[task, *pair] for task, pair in zip(tasks, choice, strict=True))
        best = max(best, (tokens / spent, choice))
    return best


def mixed_by_slots(records: Sequence[ProfileRecord], choice: Choice, concurrency: int) -> float:
    """Tokens per second of equal traffic: every batch step that can be, slot by slot, with its probability.

    For profiles measured at 1 and at `concurrency`, 2: a drafter alone in its half of the batch takes what it takes
    at concurrency 1.
    """
    by_key = {(item.task, item.drafter, tuple(item.settings), item.concurrency): item for item in records}
    tasks = list(dict.fromkeys(item.task for item in records))
    none = {task: [i for i in records if i.task == task and i.drafter == "none"] for task in tasks}
    length = {t: sum(i.completion_tokens for i in none[t]) / sum(i.requests for i in none[t]) for t in tasks}
    mine = [by_key[task, *pair, concurrency] for task, pair in zip(tasks, choice, strict=True)]
    forwards = [length[i.task] * i.verify_forwards / i.completion_tokens for i in mine]  # type: ignore[operator]
    other = [length[i.task] * (i.seconds - i.draft_seconds - i.verify_seconds) / i.completion_tokens for i in mine]
    share = [value / sum(forwards) for value in forwards]
    seconds = 0.0
    for slots in product(range(len(tasks)), repeat=concurrency):
        chance = float(np.prod([share[task] for task in slots]))
        present: dict[object, list[int]] = {}
        for task in slots:
            present.setdefault(choice[task], []).append(task)
        step = 0.0
        for pair, members in present.items():
            for task in members:
                item = by_key[tasks[task], *pair, len(members)]
                step += item.draft_seconds / item.verify_forwards / len(members)  # type: ignore[operator]
        step += max(_mean_verify(choice, share, mine, pair) for pair in present)
        seconds += chance * step
    return sum(length.values()) / (sum(forwards) * seconds + sum(other))


def _mean_verify(choice: Choice, share: list[float], mine: list[ProfileRecord], pair: object) -> float:
    """A drafter's verify forward, averaged over the tasks that it serves by the steps that they take."""
    served = [number for number, other in enumerate(choice) if other == pair]
    total = sum(share[number] * mine[number].verify_seconds / mine[number].forwards for number in served)
    return total / sum(share[number] for number in served)
