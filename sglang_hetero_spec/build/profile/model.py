"""How fast a task is expected to be under a drafter and settings, from the raw counts of a profile.

The model, and what it assumes:

- A measured point is reproduced: seconds per token = forwards per token x (draft + verify seconds per forward) +
  other seconds per token, where `other` is what the wall clock saw beside drafting and verifying (prefill, scheduling).
- Between two measured concurrencies every part is linear in the concurrency. Nothing is extrapolated.
- A smaller batch never costs a drafter less per forward than its share of a larger one would, nor more than the
  larger one; below the smallest concurrency measured, a forward costs what it costs there.
- A shorter chain is accepted just as far as the first positions of the longer one were (`shorter_chains`).

`mixed.py` has the model of several drafters in one batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sglang_hetero_spec.build.profile.records import (
    NO_SETTINGS,
    NONE,
    ProfileError,
    ProfileRecord,
    Settings,
    merged,
)


@dataclass(frozen=True)
class Candidate:
    """A drafter with one of the settings that it was measured with."""

    drafter: str
    settings: Settings

    def __str__(self) -> str:
        return self.drafter if self.drafter == NONE else f"{self.drafter} ({self.settings})"


NO_DRAFTER = Candidate(NONE, NO_SETTINGS)


@dataclass(frozen=True)
class Cell:
    """One task under one candidate at one concurrency.

    batch: mean number of requests in a forward; draft_seconds, verify_seconds: per forward of the batch;
    other_seconds: per completion token; correct_rates[i]: share of verify steps with at least i + 1 drafts right.
    """

    accept_length: float
    batch: float
    draft_seconds: float
    verify_seconds: float
    other_seconds: float
    correct_rates: tuple[float, ...]

    @property
    def forwards_per_token(self) -> float:
        return 1 / (self.accept_length * self.batch)

    @property
    def seconds_per_token(self) -> float:
        return self.forwards_per_token * (self.draft_seconds + self.verify_seconds) + self.other_seconds

    @property
    def tokens_per_second(self) -> float:
        """Of the whole batch."""
        return 1 / self.seconds_per_token


class SpeedModel:
    """Answers for what a profile measured. `none` must have been measured on every task."""

    def __init__(self, records: Iterable[ProfileRecord]) -> None:
        self._records: dict[tuple[Candidate, str], dict[int, ProfileRecord]] = {}
        for record in merged(records):
            key = Candidate(record.drafter, record.settings), record.task
            self._records.setdefault(key, {})[record.concurrency] = record
        self.tasks = tuple(dict.fromkeys(task for _, task in self._records))
        others = dict.fromkeys(candidate for candidate, _ in self._records if candidate != NO_DRAFTER)
        self.candidates = (NO_DRAFTER, *others)
        for task in self.tasks:
            if (NO_DRAFTER, task) not in self._records:
                raise ProfileError(
                    f"the profile has no record of `{NONE}` on task `{task}`; profile `{NONE}` too, it is what"
                    " speculation is compared with."
                )

    def concurrencies(self, candidate: Candidate, task: str) -> tuple[int, ...]:
        """The measured numbers of requests in flight, ascending."""
        return tuple(sorted(self._records.get((candidate, task), ())))

    def default_concurrency(self) -> int:
        """The largest at which every task was measured without speculation (interpolated ones count)."""
        return min(self.concurrencies(NO_DRAFTER, task)[-1] for task in self.tasks)

    def tokens_per_request(self, task: str) -> float:
        """Completion tokens of a request: the target's doing, so taken where nobody drafted."""
        records = self._records[NO_DRAFTER, task].values()
        return sum(record.completion_tokens for record in records) / sum(record.requests for record in records)

    def cell(self, candidate: Candidate, task: str, concurrency: int) -> Cell | None:
        """The expected figures; None where they were not measured or lie outside of what was."""
        measured = self._records.get((candidate, task), {})
        numbers = self.concurrencies(candidate, task)
        if not numbers or not numbers[0] <= concurrency <= numbers[-1]:
            return None
        above = next(number for number in numbers if number >= concurrency)
        below = max(number for number in numbers if number <= concurrency)
        fraction = (concurrency - below) / (above - below) if above > below else 0.0
        return _between(_cell(measured[below]), _cell(measured[above]), fraction)

    def draft_curve(self, candidate: Candidate, task: str, concurrency: int) -> np.ndarray:
        """Draft seconds per forward for 0, 1, ... `concurrency` requests; float64 [concurrency + 1].

        What the module says of smaller batches is enforced where noise contradicts it.
        """
        last = self.cell(candidate, task, concurrency)
        assert last is not None
        numbers = [number for number in self.concurrencies(candidate, task) if number < concurrency]
        seconds = [_cell(self._records[candidate, task][number]).draft_seconds for number in numbers]
        numbers, seconds = [*numbers, concurrency], [*seconds, last.draft_seconds]
        for place in range(len(numbers) - 2, -1, -1):
            share = seconds[place + 1] * numbers[place] / numbers[place + 1]
            seconds[place] = min(max(seconds[place], share), seconds[place + 1])
        curve = np.interp(np.arange(concurrency + 1), numbers, seconds)
        curve[0] = 0.0
        return curve


def _cell(record: ProfileRecord) -> Cell:
    busy = record.draft_seconds + record.verify_seconds
    scale = min(1.0, record.seconds / busy)  # clocks of overlapping work may add up to more than the wall's
    return Cell(
        accept_length=record.accept_length,
        batch=record.verify_steps / record.forwards,
        draft_seconds=scale * record.draft_seconds / record.forwards,
        verify_seconds=scale * record.verify_seconds / record.forwards,
        other_seconds=max(record.seconds - busy, 0.0) / record.completion_tokens,
        correct_rates=tuple(count / record.verify_steps for count in record.correct_by_position),
    )


def _between(low: Cell, high: Cell, fraction: float) -> Cell:
    def mean(one: float, other: float) -> float:
        return one + fraction * (other - one)

    return Cell(
        accept_length=mean(low.accept_length, high.accept_length),
        batch=mean(low.batch, high.batch),
        draft_seconds=mean(low.draft_seconds, high.draft_seconds),
        verify_seconds=mean(low.verify_seconds, high.verify_seconds),
        other_seconds=mean(low.other_seconds, high.other_seconds),
        correct_rates=tuple(map(mean, low.correct_rates, high.correct_rates)),
    )


def shorter_chains(records: Sequence[ProfileRecord]) -> tuple[ProfileRecord, ...]:
    """What every shorter chain that was not measured would have counted, from the longer ones that were.

    Greedy or sampled alike, whether a position is right depends on what lies before it alone: of a chain of 5 the first
    3 positions are the chain of 3 (not so under `vocab: slem`, which is left out: there a step of the drafter is not a
    position). The same tokens then take more steps; draft seconds follow the number of draft
    forwards, verify seconds the width, both by interpolation between what was measured of this drafter and
    `none` (0 draft forwards, width 1) on the same task at the same concurrency; other seconds follow the
    forwards on the line through this record and that of `none`. Counts are rounded.
    """
    groups: dict[tuple[str, str, int], dict[int, ProfileRecord]] = {}
    for record in merged(records):
        if record.settings.is_chain and record.vocab != "slem":
            groups.setdefault((record.drafter, record.task, record.concurrency), {})[record.num_steps] = record
    derived = []
    for (drafter, task, concurrency), chains in groups.items():
        none = groups.get((NONE, task, concurrency))
        if drafter != NONE and none is not None:
            missing = sorted(set(range(1, max(chains))) - set(chains))
            derived += [_shorter(chains, none[0], num_steps) for num_steps in missing]
    return tuple(derived)


def _shorter(chains: dict[int, ProfileRecord], none: ProfileRecord, num_steps: int) -> ProfileRecord:
    longer = chains[min(length for length in chains if length > num_steps)]
    right = longer.correct_by_position[:num_steps]
    more = (longer.verify_steps + longer.num_correct_drafts) / (longer.verify_steps + sum(right))
    verify_steps = round(longer.verify_steps * more)
    forwards = min(verify_steps, max(1, round(longer.forwards * more)))
    points = {0: none, **chains}
    lengths = sorted(points)
    measured = [points[length] for length in lengths]
    draft = np.interp(num_steps, lengths, [record.draft_seconds / record.forwards for record in measured])
    verify = np.interp(num_steps, lengths, [record.verify_seconds / record.forwards for record in measured])
    other = _other_seconds(longer, none, forwards)
    return ProfileRecord(
        drafter=longer.drafter,
        task=longer.task,
        num_steps=num_steps,
        topk=1,
        num_draft_tokens=num_steps + 1,
        concurrency=longer.concurrency,
        requests=longer.requests,
        verify_steps=verify_steps,
        proposed_drafts=verify_steps * num_steps,
        correct_by_position=tuple(min(verify_steps, round(count * more)) for count in right),
        completion_tokens=longer.completion_tokens,
        draft_seconds=float(draft) * forwards,
        verify_seconds=float(verify) * forwards,
        seconds=float(draft + verify) * forwards + other,
        verify_forwards=forwards,
        vocab=longer.vocab,
    )


def _other_seconds(longer: ProfileRecord, none: ProfileRecord, forwards: float) -> float:
    """Seconds beside drafting and verifying if `longer` had needed `forwards`, which are more than it did."""
    per_token = longer.completion_tokens / none.completion_tokens
    at_longer = max(longer.seconds - longer.draft_seconds - longer.verify_seconds, 0.0)
    at_none = per_token * max(none.seconds - none.draft_seconds - none.verify_seconds, 0.0)
    span = per_token * none.forwards - longer.forwards
    slope = (at_none - at_longer) / span if span > 0 else 0.0
    return at_longer + (forwards - longer.forwards) * min(max(slope, 0.0), at_longer / longer.forwards)
