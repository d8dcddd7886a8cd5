"""Figures of some requests of one arm in one setting: sums first, then quotients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sglang_hetero_spec.bench.records import BlockRecord
from sglang_hetero_spec.bench.results import estimate
from sglang_hetero_spec.bench.results.columns import Columns, count, known, quotient
from sglang_hetero_spec.bench.results.estimate import Estimate
from sglang_hetero_spec.bench.results.latency import latencies

QUOTIENTS = {
    "accept_length": ("completion_tokens", "verify_steps"),
    "accept_rate": ("correct", "proposed"),
    "request_tokens_per_second": ("completion_tokens", "seconds"),
}
_SUMS = ("prompt_tokens", "completion_tokens", "verify_steps", "proposed", "correct")


def figures(rows: Columns, seed: int) -> dict[str, Any]:
    """What requests say: counts, and what follows from them."""
    found: dict[str, Any] = {"requests": len(rows), "prompts": len(rows.prompts)}
    found |= {name: count(rows.total(name)) for name in _SUMS}
    found["request_seconds"] = known(rows.total("seconds"))
    found |= {name: estimate.of_sums(rows, *sums, seed).as_dict() for name, sums in QUOTIENTS.items()}
    found["accept_rate_by_position"] = by_position(rows)
    return found | latencies(rows, seed)


def by_position(rows: Columns) -> list[dict[str, Any]] | None:
    """Entry i: of the steps that found the first i drafts right (`steps`), how many found the next one right too
    (`correct`). None where a request has no histogram."""
    histograms = [record.histogram for record in rows.records]
    if not histograms or any(found is None for found in histograms):
        return None
    total = np.zeros(max(len(found) for found in histograms), dtype=np.int64)
    for found in histograms:
        total[: len(found)] += np.array(found, dtype=np.int64)
    reached = total[::-1].cumsum()[::-1]  # [i]: steps with at least i right
    pairs = zip(reached[:-1].tolist(), reached[1:].tolist(), strict=True)
    entries = [
        {"position": place, "steps": steps, "correct": right, "rate": quotient(right, steps)}
        for place, (steps, right) in enumerate(pairs, start=1)
    ]
    return [entry for entry in entries if entry["steps"]]


def block_speeds(rows: Columns, blocks: Sequence[BlockRecord]) -> list[float | None]:
    """Tokens per second of the server in each block."""
    tokens = rows.values["completion_tokens"]
    return [quotient(float(tokens[rows.repetition == one.repetition].sum()), one.seconds) for one in blocks]


def server_speed(rows: Columns, blocks: Sequence[BlockRecord]) -> Estimate:
    """Tokens of all requests over the wall time of their blocks."""
    wall = {one.repetition for one in blocks}
    tokens = rows.values["completion_tokens"][np.isin(rows.repetition, list(wall))].sum()
    value = quotient(float(tokens), sum(one.seconds for one in blocks))
    return estimate.over_repetitions(value, block_speeds(rows, blocks))


def server_ratio(
    ours: Columns, theirs: Columns, blocks: tuple[Sequence[BlockRecord], Sequence[BlockRecord]]
) -> Estimate:
    """One arm's server speed over another's; the interval is of the ratios of repetitions of one number."""
    value = estimate.divided(server_speed(ours, blocks[0]).value, server_speed(theirs, blocks[1]).value)
    speeds = [
        {one.repetition: speed for one, speed in zip(side, block_speeds(rows, side), strict=True)}
        for rows, side in ((ours, blocks[0]), (theirs, blocks[1]))
    ]
    each = [estimate.divided(speeds[0][number], speeds[1][number]) for number in speeds[0] if number in speeds[1]]
    return estimate.over_repetitions(value, each)
