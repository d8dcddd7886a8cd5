"""Times as a user sees them: to the first token, between tokens, to the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sglang_hetero_spec.bench.records import RequestRecord
from sglang_hetero_spec.bench.results import bootstrap
from sglang_hetero_spec.bench.results.bootstrap import UNKNOWN, Interval
from sglang_hetero_spec.bench.results.columns import Columns
from sglang_hetero_spec.bench.results.estimate import Estimate


@dataclass(frozen=True)
class Times:
    """seconds: float64 [N]; weights: how often each counts, float64 [N]; repetition: int64 [N]."""

    seconds: np.ndarray
    weights: np.ndarray
    repetition: np.ndarray

    def quantile(self, share: float, repetition: int | None = None) -> float | None:
        """The smallest time that at least `share` of them do not exceed; None without times, or if one is unknown."""
        mask = slice(None) if repetition is None else self.repetition == repetition
        seconds, weights = self.seconds[mask], self.weights[mask]
        if not len(seconds) or np.isnan(seconds).any() or weights.sum() == 0:
            return None
        return float(np.quantile(seconds, share, method="inverted_cdf", weights=weights))


def latencies(rows: Columns, seed: int) -> dict[str, Any]:
    """ttft, inter_token, chunk_gap and latency, each {"p50": estimate, "p99": estimate}.

    Medians of ttft and latency have an interval over prompts. A p99 has none: of few requests it is the largest one,
    which no bootstrap can judge; look at its repetitions.
    """
    prompts = rows.prompts
    places = np.searchsorted(prompts, rows.prompt)
    found = {}
    for name, times in request_times(rows).items():
        interval = bootstrap.of_median(times.seconds, places, len(prompts), seed)
        found[name] = _figures(times, rows.repetitions, interval)
    for name, times in gap_times(rows).items():
        found[name] = _figures(times, rows.repetitions, UNKNOWN)
    return found


def request_times(rows: Columns) -> dict[str, Times]:
    """One time a request."""
    ones = np.ones(len(rows))
    return {
        "ttft": Times(rows.values["ttft"], ones, rows.repetition),
        "latency": Times(rows.values["seconds"], ones, rows.repetition),
    }


def gap_times(rows: Columns) -> dict[str, Times]:
    """inter_token: one time a token; chunk_gap: one time a chunk. Both from the second chunk with tokens on."""
    gaps = [gaps_of(record) for record in rows.records]
    seconds = np.array([gap for found in gaps for gap, _ in found], dtype=np.float64)
    tokens = np.array([number for found in gaps for _, number in found], dtype=np.float64)
    repetition = np.repeat(rows.repetition, [len(found) for found in gaps])
    return {
        "inter_token": Times(seconds / tokens, tokens, repetition),
        "chunk_gap": Times(seconds, np.ones(len(seconds)), repetition),
    }


def gaps_of(record: RequestRecord) -> list[tuple[float, int]]:
    """(seconds since the chunk before, new tokens) of each chunk that brought tokens, the first one left out."""
    found: list[tuple[float, int]] = []
    last: tuple[float, int] | None = None
    for at, tokens in record.chunks:
        if last is None and tokens > 0:
            last = at, tokens
        elif last is not None and tokens > last[1]:
            found.append((at - last[0], tokens - last[1]))
            last = at, tokens
    return found


def _figures(times: Times, repetitions: Sequence[int], interval: Interval) -> dict[str, Any]:
    return {"p50": _estimate(times, 0.5, repetitions, interval), "p99": _estimate(times, 0.99, repetitions, UNKNOWN)}


def _estimate(times: Times, share: float, repetitions: Iterable[int], interval: Interval) -> dict[str, Any]:
    value = times.quantile(share)
    each = () if value is None else tuple(times.quantile(share, number) for number in repetitions)
    return Estimate(value, interval, each).as_dict()
