"""Thresholds of a sorted drafter for one target: those with which it is expected to be fastest.

What is known: on the target's own answers, how sure each exit is of each token and whether it is right, and what a
verify step and each segment of the drafter cost. Along such an answer greedy speculation can be replayed for any
thresholds; a draft behind the first wrong one is never looked at, and costs what drafts cost on average.

- A segment is computed where at least one of the batch's requests needs it, whatever their number; requests leave
  independently of each other. What was left behind is brought along at no extra cost.
- An exit's norm and head are part of the segment before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sglang_hetero_spec.build.profile.records import NONE, ProfileError, ProfileRecord

# Candidates for one exit: so many confidences of what was seen there, evenly spread, and "always" and "never".
_GRID = 16
_ALWAYS, _NEVER = 0.0, 1.0
_DIGITS = 4


@dataclass(frozen=True)
class SeenAnswer:
    """One held-out answer of n tokens behind the first (which the prefill gives), at each of m exits.

    confidences: float [m, n], the largest probability; hits: bool [m, n], whether its token is the target's.
    """

    confidences: np.ndarray
    hits: np.ndarray


@dataclass(frozen=True)
class Costs:
    """verify: seconds of a step beside drafting; segments: seconds of one draft in each; batch: requests in a step."""

    verify: float
    segments: tuple[float, ...]
    batch: float = 1.0


@dataclass(frozen=True)
class Chosen:
    """thresholds: one less than exits. tokens_per_second: expected, of one request; fixed: of each exit alone."""

    thresholds: tuple[float, ...]
    tokens_per_second: float
    fixed: tuple[float, ...]


def choose_thresholds(answers: Sequence[SeenAnswer], costs: Costs, num_steps: int) -> Chosen:
    """One exit after the other, from what is each fixed exit, until nothing is gained."""
    replay = Replay(answers, costs, num_steps)
    num_exits = len(costs.segments)
    grids = [replay.grid(exit) for exit in range(num_exits - 1)]
    best, best_speed = (), 0.0
    for fixed in range(num_exits):
        thresholds = tuple(_ALWAYS if exit >= fixed else _NEVER for exit in range(num_exits - 1))
        thresholds, speed = _climb(replay, thresholds, grids)
        if speed > best_speed:
            best, best_speed = thresholds, speed
    return Chosen(best, best_speed, tuple(replay.fixed(exit) for exit in range(num_exits)))


def _climb(
    replay: Replay, thresholds: tuple[float, ...], grids: Sequence[Sequence[float]]
) -> tuple[tuple[float, ...], float]:
    speed, before = replay.speed(thresholds), -1.0
    while speed > before:
        before = speed
        for exit, grid in enumerate(grids):
            for value in grid:
                tried = (*thresholds[:exit], value, *thresholds[exit + 1 :])
                found = replay.speed(tried)
                if found > speed:
                    thresholds, speed = tried, found
    return thresholds, speed


class Replay:
    """Greedy chains along known answers."""

    def __init__(self, answers: Sequence[SeenAnswer], costs: Costs, num_steps: int) -> None:
        if not any(answer.hits.shape[1] for answer in answers):
            raise ProfileError("No answer has more than one token, so no threshold can be chosen; give longer answers.")
        self._costs, self._num_steps = costs, num_steps
        self._confidences = np.concatenate([answer.confidences for answer in answers], axis=1)
        self._hits = np.concatenate([answer.hits for answer in answers], axis=1)
        self._lens = [answer.hits.shape[1] for answer in answers]

    def grid(self, exit: int) -> list[float]:
        spread = np.quantile(self._confidences[exit], np.linspace(0, 1, _GRID + 2)[1:-1])
        return sorted({_ALWAYS, _NEVER, *(round(float(value), _DIGITS) for value in spread)})

    def speed(self, thresholds: Sequence[float]) -> float:
        """Expected tokens per second of one request."""
        sure = np.vstack(
            [self._confidences[:-1] >= np.reshape(thresholds, (-1, 1)), np.ones(self._hits.shape[1], bool)]
        )
        left = sure.argmax(axis=0)
        return self._speed(self._hits[left, np.arange(len(left))], left)

    def fixed(self, exit: int) -> float:
        return self._speed(self._hits[exit], np.full(self._hits.shape[1], exit))

    def _speed(self, hits: np.ndarray, left: np.ndarray) -> float:
        steps = self._steps(hits)
        draft = sum(
            seconds * (1 - (left < segment).mean() ** self._costs.batch)
            for segment, seconds in enumerate(self._costs.segments)
        )
        return len(hits) / (steps * (self._costs.verify + self._num_steps * float(draft)))

    def _steps(self, hits: np.ndarray) -> int:
        """Verify steps for all answers: each takes the right drafts, at most num_steps, and one token more."""
        runs = _runs(hits)
        steps = start = 0
        for length in self._lens:
            at, end = start, start + length
            while at < end:
                at += min(runs[at], self._num_steps) + 1
                steps += 1
            start = end
        return steps


def _runs(hits: np.ndarray) -> list[int]:
    """How many hits follow one another from each place on."""
    runs, run = [0] * len(hits), 0
    for place in range(len(hits) - 1, -1, -1):
        run = run + 1 if hits[place] else 0
        runs[place] = run
    return runs


def measured_costs(records: Iterable[ProfileRecord], names: Sequence[str], num_steps: int, concurrency: int) -> Costs:
    """From a profile in which `names` were fixed exits of one drafter, the shallowest first, over all of its tasks.

    ProfileError where one of them was not measured with chains of `num_steps` at this concurrency.
    """
    mine = [record for record in records if record.concurrency == concurrency and record.drafter != NONE]
    drafts, steps = [], []
    for name in names:
        found = [record for record in mine if record.drafter == name and record.num_steps == num_steps]
        if not found:
            raise ProfileError(f"`{name}` was not measured with {num_steps} steps at concurrency {concurrency}.")
        forwards = sum(record.forwards for record in found)
        drafts.append(sum(record.draft_seconds for record in found) / forwards / num_steps)
        steps.append(
            (
                sum(record.seconds - record.draft_seconds for record in found) / forwards,
                sum(record.verify_steps for record in found) / forwards,
            )
        )
    segments = [drafts[0], *(max(after - before, 0.0) for before, after in pairwise(drafts))]
    verify, batch = np.mean(steps, axis=0)
    return Costs(float(verify), tuple(segments), float(batch))
