"""Which exits of a sorted drafter are ever taken, by its thresholds."""

from __future__ import annotations

from dataclasses import replace

from sglang_hetero_spec.pool.model import DrafterSpec


def taken(spec: DrafterSpec) -> DrafterSpec:
    """The same drafter without the exits that no draft leaves at: a threshold of 1 is never looked at, and behind one
    of 0 there is nothing."""
    exits = list(zip(spec.exits, (*spec.thresholds, 0.0), strict=True))
    last = next(number for number, (_, threshold) in enumerate(exits) if threshold <= 0)
    kept = [(layers, threshold) for layers, threshold in exits[: last + 1] if threshold < 1]
    return replace(
        spec,
        exits=tuple(layers for layers, _ in kept),
        thresholds=tuple(threshold for _, threshold in kept[:-1]),
    )
