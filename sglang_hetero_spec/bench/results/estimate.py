"""A figure with what is known of its error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sglang_hetero_spec.bench.results import bootstrap
from sglang_hetero_spec.bench.results.bootstrap import UNKNOWN, Interval
from sglang_hetero_spec.bench.results.columns import Columns, quotient


@dataclass(frozen=True)
class Estimate:
    """value: over all repetitions; interval: of 95%; by_repetition: the same figure of each repetition alone."""

    value: float | None
    interval: Interval = UNKNOWN
    by_repetition: tuple[float | None, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "low": self.interval.low,
            "high": self.interval.high,
            "by_repetition": list(self.by_repetition),
        }


def of_sums(rows: Columns, over: str, under: str, seed: int) -> Estimate:
    """sum(over) / sum(under), with the interval over prompts."""
    value = quotient(rows.total(over), rows.total(under))
    if value is None:
        return Estimate(None)
    prompts = rows.prompts
    interval = bootstrap.of_quotient(rows.by_prompt(over, prompts), rows.by_prompt(under, prompts), seed)
    return Estimate(value, interval, tuple(_by_repetition(rows, over, under)))


def ratio_of_sums(ours: Columns, theirs: Columns, over: str, under: str, seed: int) -> Estimate:
    """One arm's quotient over another's on the prompts that both served, with the paired interval over prompts."""
    common = set(ours.prompt.tolist()) & set(theirs.prompt.tolist())
    ours, theirs = (
        side if len(common) == len(side.prompts) else side.where(lambda row: row.prompt in common)
        for side in (ours, theirs)
    )
    prompts = np.array(sorted(common), dtype=np.int64)
    value = divided(quotient(ours.total(over), ours.total(under)), quotient(theirs.total(over), theirs.total(under)))
    if value is None:
        return Estimate(None)
    sums = [(side.by_prompt(over, prompts), side.by_prompt(under, prompts)) for side in (ours, theirs)]
    pairs = [_by_repetition(side, over, under) for side in (ours, theirs)]
    same = ours.repetitions == theirs.repetitions
    each = [divided(a, b) for a, b in zip(*pairs, strict=True)] if same else []
    return Estimate(value, bootstrap.of_ratio(sums[0], sums[1], seed), tuple(each))


def over_repetitions(value: float | None, each: Sequence[float | None]) -> Estimate:
    """A figure of whole blocks, with the interval over repetitions."""
    interval = UNKNOWN if value is None else bootstrap.over_repetitions(each)
    return Estimate(value, interval, tuple(each))


def divided(over: float | None, under: float | None) -> float | None:
    return None if over is None or under is None or under == 0 else over / under


def _by_repetition(rows: Columns, over: str, under: str) -> list[float | None]:
    masks = (rows.repetition == number for number in rows.repetitions)
    return [quotient(float(rows.values[over][mask].sum()), float(rows.values[under][mask].sum())) for mask in masks]
