"""Graphs are captured round by round until the budget ends; what cannot be captured is said and costs nobody else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sglang_hetero_spec.cuda.graphs.ladder import MOST_SIZES, Budget, GraphCost, batch_sizes, capture_order
from sglang_hetero_spec.cuda.graphs.shapes import GraphShape

MIB = 1 << 20


class Shape:
    """graphs.draft_graphs.ShapeGraphs, of which a capture takes 10 MiB and no time."""

    def __init__(self, kind: str, width: int, device: dict[str, int], log: list[tuple[str, int]]) -> None:
        self.shape = GraphShape(kind, width)
        self.sizes: tuple[int, ...] = ()
        self.last_cost = GraphCost(0, 0.0)
        self.fails_at: int | None = None
        self._device, self._log = device, log

    def capture(self, size: int) -> None:
        if size == self.fails_at:
            raise RuntimeError("operation not permitted\nwhile capturing")
        self._device["free"] -= 10 * MIB
        self.sizes = tuple(sorted((*self.sizes, size)))
        self._log.append((self.shape.kind, size))


class Graphs(SimpleNamespace):
    """graphs.draft_graphs.DraftGraphs."""

    def forget(self) -> None:
        for shape in self.by_shape.values():
            shape.sizes = ()


@pytest.fixture
def device() -> dict[str, int]:
    return {"free": 10_000 * MIB}


@pytest.fixture
def log() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def models(device: dict[str, int], log: list[tuple[str, int]]) -> dict[str, Any]:
    def graphs() -> Graphs:
        shapes = [Shape("window", 2, device, log), Shape("next", 1, device, log)]
        return Graphs(largest=48, by_shape={shape.shape: shape for shape in shapes})

    return {"code": graphs(), "maths": graphs()}


@pytest.fixture
def captured(sglang: None, models: dict[str, Any], device: dict[str, int]) -> Iterator[Callable[[Budget], list]]:
    from sglang_hetero_spec.cuda.graphs.capture import capture_all

    yield lambda budget: capture_all(models, budget, lambda: device["free"])


def test_with_room_everything_is_captured_the_largest_first(captured, models, log) -> None:
    rows = captured(Budget(1000 * MIB, 60.0))
    order = capture_order(batch_sizes(48, MOST_SIZES))
    assert log == [(kind, size) for size in order for kind in ("window", "next", "window", "next")]
    assert [row.problem for row in rows] == [None, None]
    assert [row.cost.num_bytes for row in rows] == [2 * MOST_SIZES * 10 * MIB] * 2
    assert rows[0].sizes == ("window 2: 1, 2, 5, 10, 22, 48", "next 1: 1, 2, 5, 10, 22, 48")


def test_where_the_budget_ends_all_have_about_as_much(captured, models) -> None:
    rows = captured(Budget(95 * MIB, 60.0))
    numbers = [len(shape.sizes) for graphs in models.values() for shape in graphs.by_shape.values()]
    assert sum(numbers) == 9 and max(numbers) - min(numbers) <= 1
    assert all(row.problem == "the budget is spent" for row in rows)
    assert all(48 in shape.sizes for graphs in models.values() for shape in graphs.by_shape.values())


def test_what_fails_on_one_rank_fails_on_all(sglang: None, models, device) -> None:
    from sglang_hetero_spec.cuda.graphs.capture import capture_all

    # For each capture the ranks agree that the budget holds it, and then that it was made.
    others = iter([True, True, True, False] + [True] * 100)
    code, maths = capture_all(
        models, Budget(1000 * MIB, 60.0), lambda: device["free"], agree=lambda mine: mine and next(others)
    )
    assert code.problem == "another rank could not capture it" and code.sizes == ("window 2: -", "next 1: -")
    assert maths.problem is None


def test_no_rank_captures_alone(sglang: None, models, device, log) -> None:
    from sglang_hetero_spec.cuda.graphs.capture import capture_all

    others = iter([True] * 6 + [False] + [True] * 100)
    rows = capture_all(
        models, Budget(1000 * MIB, 60.0), lambda: device["free"], agree=lambda mine: mine and next(others)
    )
    assert log[:4] == [("window", 48), ("next", 48), ("window", 48), ("window", 5)]
    assert [row.problem for row in rows] == [None, "the budget is spent"]


def test_seconds_end_it_too(captured, models) -> None:
    for graphs in models.values():
        for shape in graphs.by_shape.values():
            shape.last_cost = GraphCost(0, 61.0)
    rows = captured(Budget(1000 * MIB, 60.0))
    assert all(row.sizes == ("window 2: -", "next 1: -") for row in rows)


def test_a_model_that_cannot_be_captured_costs_no_other(captured, models) -> None:
    next(iter(models["code"].by_shape.values())).fails_at = 22
    code, maths = captured(Budget(1000 * MIB, 60.0))
    assert code.problem == "capturing 22 requests failed: operation not permitted"
    assert code.sizes == ("window 2: -", "next 1: -"), "half a ladder may hold broken graphs"
    assert maths.problem is None and all(len(shape.sizes) == MOST_SIZES for shape in models["maths"].by_shape.values())


def test_the_table_says_what_there_is_and_warns_of_what_is_not(captured, models, caplog) -> None:
    from sglang_hetero_spec.cuda.graphs.capture import print_captured

    rows = captured(Budget(95 * MIB, 60.0))
    with caplog.at_level(logging.INFO):
        print_captured(rows, Budget(95 * MIB, 60.0))
    table, *warnings = [record.getMessage() for record in caplog.records]
    assert "within 95 MiB and 60 seconds" in table and "code" in table and "window 2: 1, 5, 48" in table
    assert len(warnings) == 2 and "the budget is spent" in warnings[0]


def test_half_of_what_is_free_is_the_most(sglang: None, models) -> None:
    from sglang_hetero_spec.cuda.graphs.capture import budget_of

    assert budget_of(models, 100 * MIB).num_bytes == 50 * MIB
    assert budget_of(models, 1 << 40).num_bytes == 4 * MOST_SIZES * (8 * MIB + 4 * 32768 + 24 * MIB)
