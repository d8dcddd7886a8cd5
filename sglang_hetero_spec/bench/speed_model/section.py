"""The speed model's section of a run's report: JSON-able, null with a reason where the run lacks what it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from sglang_hetero_spec.bench.records import RequestRecord
from sglang_hetero_spec.bench.speed_model import check, expect, words
from sglang_hetero_spec.bench.speed_model.carried import TaskAccepts, task_accepts
from sglang_hetero_spec.bench.speed_model.costs import terms_of
from sglang_hetero_spec.bench.speed_model.fit import fit_servers, forwards, observe
from sglang_hetero_spec.bench.speed_model.published import compared
from sglang_hetero_spec.bench.speed_model.roofline import Efficiency, Ranges
from sglang_hetero_spec.bench.speed_model.run_folder import Block, read_run, settings_of

DRAWS = 200
SINGLE = ("standalone-best", "standalone")  # arms with one drafter for all, the first one that the run has
POOL = ("hetero",)


def section(run_folder: str | Path) -> dict[str, Any]:
    """Of a run's files. BenchError, in one sentence, where they cannot be read."""
    blocks = read_run(run_folder)
    return {
        "fit": _fit(blocks),
        "check": _check(blocks),
        "published": {"rows": compared(), "assumptions": list(words.PUBLISHED)},
        "expect": _expect(blocks),
    }


def _fit(blocks: Sequence[Block]) -> dict[str, Any]:
    servers = fit_servers(observe(blocks))
    if not servers:
        return {"servers": None, "why_not": "no block has a fixed number of requests in flight."}
    steps = [
        counted / block.record.forwards - 1
        for block in blocks
        if block.record.forwards and (counted := forwards(block))
    ]
    return {
        "why_not": None,
        "settings": settings_of(blocks),
        "servers": {
            server: {
                part: dict(zip(terms_of(part), map(float, values), strict=True)) for part, values in costs.parts.items()
            }
            for server, costs in servers.items()
        },
        "forwards": {
            "median_error": median(map(abs, steps)),
            "largest_error": max(map(abs, steps)),
        }
        if steps
        else None,
        "assumptions": list(words.FITTED),
    }


def _check(blocks: Sequence[Block]) -> dict[str, Any]:
    rows = check.check(blocks)
    if not rows:
        return {
            "rows": None,
            "why_not": "nothing can be held out: that takes three settings, two of them with a fixed number of requests"
            " in flight, or two arms of one server.",
        }
    return {
        "why_not": None,
        "within": check.WITHIN,
        "summary": check.summary(rows),
        "rows": [asdict(row) | {"error": row.error, "request_error": row.request_error} for row in rows],
    }


def _expect(blocks: Sequence[Block]) -> dict[str, Any]:
    poolings, reasons = [], []
    for arms, name, together in (
        (SINGLE, "one drafter for all", True),
        (POOL, "a drafter for each task", False),
        (POOL, "an adapter of one base for each task", True),
    ):
        accepts = _accepts(blocks, arms)
        if isinstance(accepts, str):
            reasons.append(f"{name}: {accepts}")
        else:
            poolings.append(expect.Pooling(name, accepts, together))
    if not poolings:
        return {"rows": None, "why_not": reasons[0], "assumptions": list(words.expected(Ranges(), False))}
    efficiency = Efficiency.draw(DRAWS)
    return {
        "why_not": None,
        "left_out": reasons,
        "rows": [row for graphs in (False, True) for row in expect.rows(poolings, efficiency, graphs=graphs)],
        "assumptions": list(words.expected(Ranges(), True)),
    }


def _accepts(blocks: Sequence[Block], arms: Sequence[str]) -> TaskAccepts | str:
    arm = next((arm for arm in arms if any(block.arm == arm for block in blocks)), None)
    if arm is None:
        return f"the run has no arm `{arms[-1]}`."
    once: dict[int, RequestRecord] = {}
    for block in blocks:
        if block.arm == arm:
            for request in block.requests:
                once.setdefault(request.prompt, request)
    return task_accepts(list(once.values()), DRAWS)
