"""95% confidence intervals.

Over prompts: prompts are drawn with replacement, all repetitions of a prompt together, and the quotient of the sums is
taken anew; BCa (Efron 1987), because a quotient of few prompts is skewed. Draws depend on the seed and the number of
prompts only, so two arms are compared on the same draws (paired).
Over repetitions: Student's t on the logarithms (speeds and ratios are positive).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special, stats

LEVEL = 0.95
RESAMPLES = 2000
MIN_REPETITIONS = 3
_CHUNK = 1 << 22  # numbers of a matrix at a time


@dataclass(frozen=True)
class Interval:
    """None, None where it takes more prompts or repetitions."""

    low: float | None
    high: float | None


UNKNOWN = Interval(None, None)


@lru_cache(maxsize=8)
def draws(num_prompts: int, seed: int) -> np.ndarray:
    """uint16 [RESAMPLES, P]: how often each prompt is in each draw."""
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = np.empty((RESAMPLES, num_prompts), dtype=np.uint16)
    for row in drawn:
        row[:] = np.bincount(generator.integers(0, num_prompts, num_prompts), minlength=num_prompts)
    return drawn


def of_quotient(over: np.ndarray, under: np.ndarray, seed: int) -> Interval:
    """Of sum(over) / sum(under); both float64 [P], sums by prompt."""
    return _of_product([(over, under)], seed)


def of_ratio(ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray], seed: int) -> Interval:
    """Of (sum over / sum under) of one arm over that of another, on the same prompts in the same draws."""
    return _of_product([ours, theirs[::-1]], seed)


def _of_product(pairs: Sequence[tuple[np.ndarray, np.ndarray]], seed: int) -> Interval:
    """Of a product of quotients of sums."""
    columns = np.stack([column for pair in pairs for column in pair], axis=1)  # [P, 2 * quotients]
    num_prompts = len(columns)
    if num_prompts < 2 or np.isnan(columns).any():
        return UNKNOWN
    total = columns.sum(axis=0)
    if (total[1::2] == 0).any():
        return UNKNOWN
    drawn = _quotients(_resampled(columns, seed))
    drawn = drawn[np.isfinite(drawn)]  # a draw may have met no step at all
    left_out = _quotients(total - columns)
    if len(drawn) < RESAMPLES // 2 or not np.isfinite(left_out).all():
        return UNKNOWN
    return bca(drawn, float(_quotients(total[None])[0]), left_out)


def bca(drawn: np.ndarray, value: float, left_out: np.ndarray) -> Interval:
    """The bias-corrected and accelerated interval. left_out: float64 [P], the value without each prompt."""
    below = float(np.mean(drawn < value) + np.mean(drawn <= value)) / 2
    bias = special.ndtri(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))
    spread = left_out.mean() - left_out
    scale = 6 * (spread**2).sum() ** 1.5
    acceleration = (spread**3).sum() / scale if scale > 0 else 0.0
    shifted = bias + special.ndtri([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    places = special.ndtr(bias + shifted / (1 - acceleration * shifted))
    low, high = np.quantile(drawn, places)
    return Interval(float(low), float(high))


def of_median(values: np.ndarray, places: np.ndarray, num_prompts: int, seed: int) -> Interval:
    """Of the median of values, float64 [N]; places: int64 [N], the prompt of each, below num_prompts. Percentiles."""
    if num_prompts < 2 or not len(values) or np.isnan(values).any():
        return UNKNOWN
    order = np.argsort(values, kind="stable")
    ordered, rows = values[order], places[order]
    weights = draws(num_prompts, seed)
    medians = []
    step = max(1, _CHUNK // len(values))
    for start in range(0, RESAMPLES, step):
        reached = np.cumsum(weights[start : start + step][:, rows], axis=1, dtype=np.int64)
        medians.append(ordered[(2 * reached >= reached[:, -1:]).argmax(axis=1)][reached[:, -1] > 0])
    low, high = np.quantile(np.concatenate(medians), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def over_repetitions(values: Sequence[float | None]) -> Interval:
    """Of the geometric mean of repeated measurements. Unknown where one of them is unknown or 0, and of fewer than
    three, where it would be too wide to say anything."""
    if len(values) < MIN_REPETITIONS or any(value is None or value <= 0 for value in values):
        return UNKNOWN
    logs = np.log(np.array(values, dtype=np.float64))
    half = stats.t.ppf((1 + LEVEL) / 2, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    return Interval(float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half)))


def _resampled(columns: np.ndarray, seed: int) -> np.ndarray:
    """float64 [RESAMPLES, C]: sums over each draw."""
    weights = draws(len(columns), seed)
    step = max(1, _CHUNK // len(columns))
    parts = [weights[at : at + step].astype(np.float64) @ columns for at in range(0, RESAMPLES, step)]
    return np.concatenate(parts)


def _quotients(sums: np.ndarray) -> np.ndarray:
    """float64 [R] of [R, 2 * quotients]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (sums[:, 0::2] / sums[:, 1::2]).prod(axis=1)
