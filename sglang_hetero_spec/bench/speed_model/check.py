"""The model against blocks that it was not fitted on: each setting, each arm in turn, and all but two settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from sglang_hetero_spec.bench.speed_model.accept import accept_table
from sglang_hetero_spec.bench.speed_model.fit import Observed, fit_servers, observe
from sglang_hetero_spec.bench.speed_model.predict import Speed, measured, predict
from sglang_hetero_spec.bench.speed_model.run_folder import Block, in_flight, settings_of

WITHIN = 0.15


@dataclass(frozen=True)
class Split:
    """fit: says of a block whether the model may see it; the others are predicted."""

    name: str
    title: str
    fit: Callable[[Block], bool]


@dataclass(frozen=True)
class Row:
    """An arm in a setting that was held out. lowest, highest: tokens per second of single repetitions; the measured
    and the predicted ones are of all repetitions, sums before division. why_not: where nothing could be predicted."""

    split: str
    held_out: str
    arm: str
    setting: str
    measured: Speed
    lowest: float
    highest: float
    predicted: Speed | None
    why_not: str | None

    @property
    def error(self) -> float | None:
        """Of tokens per second, relative to the measured ones."""
        if self.predicted is None:
            return None
        return self.predicted.tokens_per_second / self.measured.tokens_per_second - 1

    @property
    def request_error(self) -> float | None:
        """Of the mean seconds of a request."""
        if self.predicted is None:
            return None
        return self.predicted.request_seconds / self.measured.request_seconds - 1


def splits(blocks: Sequence[Block]) -> list[Split]:
    """What the run allows: a setting is held out where two others with a fixed number in flight are left."""
    found = []
    settings = settings_of(blocks)
    closed = [setting for setting in settings if in_flight(setting)]
    for setting in settings:
        if len([one for one in closed if one != setting]) >= 2:
            found.append(Split("setting", f"setting {setting}", lambda block, held=setting: block.setting != held))
    if len(settings) >= 3 and len(closed) >= 2:
        few = (closed[0], min(closed[1:], key=lambda one: abs(math.log((in_flight(one) or 1) / 4))))
        title = f"all but {few[0]} and {few[1]}"
        found.append(Split("few settings", title, lambda block, few=few: block.setting in few))
    servers = {block.arm: block.server for block in blocks}
    for arm, server in servers.items():
        if list(servers.values()).count(server) >= 2:
            found.append(Split("arm", f"arm {arm}", lambda block, held=arm: block.arm != held))
    return found


def check(blocks: Sequence[Block]) -> list[Row]:
    observed = observe(blocks)
    return [row for split in splits(blocks) for row in _rows(split, observed)]


def _rows(split: Split, observed: Sequence[Observed]) -> Iterator[Row]:
    seen = [one for one in observed if split.fit(one.block)]
    costs, table = fit_servers(seen), accept_table(request for one in seen for request in one.block.requests)
    held: dict[tuple[str, str], list[Block]] = {}
    for one in observed:
        if not split.fit(one.block):
            held.setdefault((one.block.arm, one.block.setting), []).append(one.block)
    for (arm, setting), repetitions in held.items():
        # Where the number in flight is fixed, every repetition is asked the same.
        asked = repetitions[:1] if in_flight(setting) else repetitions
        found = [predict(block, costs, table) for block in asked] * (len(repetitions) // len(asked))
        why_not = next((one for one in found if isinstance(one, str)), None)
        real = [measured(block) for block in repetitions]
        single = [one.tokens_per_second for one in real]
        yield Row(
            split=split.name,
            held_out=split.title,
            arm=arm,
            setting=setting,
            measured=_together(real, repetitions),
            lowest=min(single),
            highest=max(single),
            predicted=_together([one for one in found if isinstance(one, Speed)], repetitions) if not why_not else None,
            why_not=why_not,
        )


def _together(speeds: Sequence[Speed], blocks: Sequence[Block]) -> Speed:
    tokens = sum(block.tokens for block in blocks)
    seconds = sum(block.tokens / speed.tokens_per_second for block, speed in zip(blocks, speeds, strict=True))
    waits = sum(speed.request_seconds * len(block.requests) for block, speed in zip(blocks, speeds, strict=True))
    return Speed(tokens / seconds, waits / sum(len(block.requests) for block in blocks))


def summary(rows: Sequence[Row]) -> dict[str, dict[str, float | int]]:
    """By split: how many were predicted, how many within 15%, the median and the largest error (of tokens/s)."""
    out: dict[str, dict[str, float | int]] = {}
    for name in dict.fromkeys(row.split for row in rows):
        errors = [abs(row.error) for row in rows if row.split == name and row.error is not None]
        if errors:
            within = sum(error <= WITHIN for error in errors)
            out[name] = {
                "predicted": len(errors),
                "within": within,
                "median_error": median(errors),
                "largest_error": max(errors),
            }
    return out
