"""Does a second run say the same, within the intervals that both state?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_hetero_spec.bench.results.run_files import AGGREGATE_NAME, read_object


@dataclass(frozen=True)
class Pair:
    """One figure of two runs. agrees: their distance, as a ratio, is at most the root of the sum of the squares of both
    intervals' halves on that side; None where one run has no such figure or no interval."""

    setting: str
    name: str
    first: float | None
    second: float | None
    agrees: bool | None


def agreement(first: str | Path, second: str | Path) -> list[Pair]:
    """Ratios of server speed and accept lengths of two finished runs, setting by setting; BenchError without their
    aggregate.json. Of 20 figures that are 95% sure one may disagree by chance."""
    one, other = (_figures(read_object(Path(folder) / AGGREGATE_NAME)) for folder in (first, second))
    names = dict.fromkeys([*one, *other])
    return [_pair(name, one.get(name), other.get(name)) for name in names]


def _figures(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return dict(_named(found))


def _named(found: dict[str, Any]) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    for setting, cell in found["settings"].items():
        for pair, ratios in cell["ratios"].items():
            yield (setting, f"tokens/s of the server, {pair}"), ratios["all"]["server_tokens_per_second"]
        for arm, groups in cell["arms"].items():
            yield (setting, f"accept length, {arm}"), groups["all"]["accept_length"]


def _pair(name: tuple[str, str], one: dict[str, Any] | None, other: dict[str, Any] | None) -> Pair:
    values = [None if item is None else item["value"] for item in (one, other)]
    return Pair(*name, *values, _agrees(one, other))


def _agrees(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool | None:
    if one is None or other is None or not all(item["value"] and item["low"] for item in (one, other)):
        return None
    low, high = sorted((one, other), key=lambda item: item["value"])
    distance = math.log(high["value"] / low["value"])
    above = math.log(low["high"] / low["value"])
    below = math.log(high["value"] / high["low"])
    return distance <= math.hypot(max(0.0, above), max(0.0, below))
