"""Where a server's time and memory went, by its own counters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sglang_hetero_spec.bench.records import BlockRecord
from sglang_hetero_spec.bench.results.estimate import divided

PARTS = ("draft", "target", "host")


def step_figures(blocks: Sequence[BlockRecord]) -> dict[str, Any]:
    """Shares of a verify step, its time, the router's time and the KV cache; None without the counters."""
    seconds = {part: total(getattr(one, f"{part}_seconds") for one in blocks) for part in PARTS}
    whole = total(seconds.values())
    each = [[getattr(one, f"{part}_seconds") for part in PARTS] for one in blocks]
    found: dict[str, Any] = {}
    for place, part in enumerate(PARTS):
        found[f"{part}_share"] = {
            "value": divided(seconds[part], whole),
            "low": None,
            "high": None,
            "by_repetition": [] if whole is None else [divided(row[place], total(row)) for row in each],
        }
    return found | {
        "step_seconds": divided(whole, total(one.forwards for one in blocks)),
        "host_step_seconds": divided(seconds["host"], total(one.forwards for one in blocks)),
        "forwards": total(one.forwards for one in blocks),
        "route_seconds": divided(total(one.route_seconds for one in blocks), total(one.routes for one in blocks)),
        "kv_bytes": most(one.kv_bytes for one in blocks),
        "kv_used_tokens": most(one.kv_used_tokens for one in blocks),
    }


def draft_share_of(drafter: str, blocks: Sequence[BlockRecord]) -> float | None:
    """The drafter's part of the time in which anything was drafted."""
    if not blocks or any(one.drafter_seconds is None for one in blocks):
        return None
    own = sum((one.drafter_seconds or {}).get(drafter, 0.0) for one in blocks)
    return divided(own, sum(sum((one.drafter_seconds or {}).values()) for one in blocks))


def total(values: Iterable[float | None]) -> float | None:
    """The sum; None where there is nothing, or something is unknown."""
    found = list(values)
    if not found or any(value is None for value in found):
        return None
    return sum(value for value in found if value is not None)


def most(values: Iterable[int | None]) -> int | None:
    found = [value for value in values if value is not None]
    return max(found) if found else None
