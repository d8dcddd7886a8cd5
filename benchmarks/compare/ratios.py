"""B's time over A's, out of runs that alternated."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from benchmarks.compare.suites import Times

Runs = Sequence[dict[str, Times]]

# Of the interval. There are many benchmarks: at 95 % one in twenty would be marked by chance.
CONFIDENCE = 0.99
# Less than this is not marked however sure it is: where code lies in memory shifts times by as much.
SMALLEST = 0.03


@dataclass(frozen=True)
class Ratio:
    """B over A: below 1, B is faster.

    quickest: of the minima over all runs; median: of the medians of the runs' medians. low, high: interval of the ratio
    of minima, from the pairs of runs; None with one pair. a_seconds: A's minimum.
    """

    name: str
    quickest: float
    median: float
    low: float | None
    high: float | None
    a_seconds: float

    @property
    def mark(self) -> str:
        """ "slower" or "faster" where that is beyond noise, else ""."""
        if self.low is None or self.high is None or abs(self.quickest - 1) < SMALLEST:
            return ""
        return "slower" if self.low > 1 else "faster" if self.high < 1 else ""


def ratios(runs_a: Runs, runs_b: Runs) -> list[Ratio]:
    """Of the benchmarks that every run has, in A's order. runs_a[i] and runs_b[i] were neighbours in time."""
    names = [name for name in runs_a[0] if all(name in run for run in (*runs_a, *runs_b))]
    return [_ratio(name, [run[name] for run in runs_a], [run[name] for run in runs_b]) for name in names]


def _ratio(name: str, times_a: list[Times], times_b: list[Times]) -> Ratio:
    pairs = [math.log(b.quickest / a.quickest) for a, b in zip(times_a, times_b, strict=True)]
    low, high = _interval(pairs)
    quickest_a, quickest_b = (min(time.quickest for time in times) for times in (times_a, times_b))
    median_a, median_b = (statistics.median(time.median for time in times) for times in (times_a, times_b))
    return Ratio(name, quickest_b / quickest_a, median_b / median_a, low, high, quickest_a)


def _interval(logs: list[float]) -> tuple[float, float] | tuple[None, None]:
    """Student's interval for the mean of logarithms, back as ratios."""
    if len(logs) < 2:
        return None, None
    reach = stats.t.ppf(0.5 + CONFIDENCE / 2, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    middle = statistics.fmean(logs)
    return math.exp(middle - reach), math.exp(middle + reach)


def left_out(runs_a: Runs, runs_b: Runs) -> tuple[list[str], list[str]]:
    """Benchmarks that only A has, and only B has, in any run."""
    names_a, names_b = ({name for run in runs for name in run} for runs in (runs_a, runs_b))
    return sorted(names_a - names_b), sorted(names_b - names_a)
