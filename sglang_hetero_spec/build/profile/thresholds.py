"""Thresholds of a sorted drafter for one target: those with which it is expected to be fastest.

What is known: on the target's own answers, how sure each exit is of each token and whether it is right, and what a
verify step and each segment of the drafter cost. Along such an answer greedy speculation can be replayed for any
thresholds. Behind the first wrong draft of a chain, and behind the end of an answer, drafts cost as if they were right.

- A segment is computed where at least one of the batch's requests needs it, whatever their number; requests leave
  independently of each other. What was left behind is brought along at no extra cost.
- An exit that is looked at and not left at costs a norm and a head more than the segments.
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
    """verify: seconds of a step beside drafting; segments: seconds of one draft in each, the first with a norm and
    head, which take `look`; batch: requests in a step."""

    verify: float
    segments: tuple[float, ...]
    batch: float = 1.0
    look: float = 0.0


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
    """Greedy chains along known answers, from every place of them; only those that speculation comes to count."""

    def __init__(self, answers: Sequence[SeenAnswer], costs: Costs, num_steps: int) -> None:
        if not any(answer.hits.shape[1] for answer in answers):
            raise ProfileError("No answer has more than one token, so no threshold can be chosen; give longer answers.")
        self._costs, self._num_steps = costs, num_steps
        self._confidences = np.concatenate([answer.confidences for answer in answers], axis=1)
        self._hits = np.concatenate([answer.hits for answer in answers], axis=1)
        self._lens = [answer.hits.shape[1] for answer in answers]
        self._ends = np.repeat(np.cumsum(self._lens), self._lens)

    def grid(self, exit: int) -> list[float]:
        spread = np.quantile(self._confidences[exit], np.linspace(0, 1, _GRID + 2)[1:-1])
        return sorted({_ALWAYS, _NEVER, *(round(float(value), _DIGITS) for value in spread)})

    def fixed(self, exit: int) -> float:
        num_inner = len(self._hits) - 1
        return self.speed(tuple(_NEVER if inner < exit else _ALWAYS for inner in range(num_inner)))

    def speed(self, thresholds: Sequence[float]) -> float:
        """Expected tokens per second of one request."""
        runs, left = self._chains(thresholds)
        starts = self._starts(runs)
        steps = len(starts)
        draft = 0.0
        for at_step in left:
            exits = at_step[starts]
            draft += sum(
                cost * (1 - (exits < segment).mean() ** self._costs.batch)
                for segment, cost in enumerate(self._segments(thresholds))
            )
        return self._hits.shape[1] / (steps * (self._costs.verify + float(draft)))

    def _segments(self, thresholds: Sequence[float]) -> list[float]:
        """With the looks that lead there, and none at exits that are never left at."""
        looks = [0.0, *(self._costs.look if threshold < _NEVER else 0.0 for threshold in thresholds)]
        return [segment + look for segment, look in zip(self._costs.segments, looks, strict=True)]

    def _chains(self, thresholds: Sequence[float]) -> tuple[list[int], list[np.ndarray]]:
        """From every place: how many drafts are right, and at which exit each of them leaves, [num_steps, n]."""
        num_places = self._hits.shape[1]
        places, standing = np.arange(num_places), np.ones(num_places)
        runs, right, left = np.zeros(num_places, int), np.ones(num_places, bool), []
        limits = np.reshape([1 - threshold for threshold in thresholds], (-1, 1))
        is_left_at = np.array([threshold < _NEVER for threshold in thresholds], bool).reshape(-1, 1)
        for step in range(self._num_steps):
            at = np.minimum(places + step, num_places - 1)
            sure = ((1 - self._confidences[:-1, at]) * standing <= limits) & is_left_at
            exits = np.vstack([sure, np.ones(num_places, bool)]).argmax(axis=0)
            right &= self._hits[exits, at] & (places + step < self._ends)
            runs += right
            standing = standing * self._confidences[exits, at]
            left.append(exits)
        return runs.tolist(), left

    def _starts(self, runs: Sequence[int]) -> list[int]:
        """Where the verify steps of all answers begin: each takes the right drafts and one token more."""
        starts, start = [], 0
        for length in self._lens:
            at, end = start, start + length
            while at < end:
                starts.append(at)
                at += runs[at] + 1
            start = end
        return starts


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
