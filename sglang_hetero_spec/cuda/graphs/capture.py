"""Capturing the graphs of all draft models at start-up, within a budget of memory and seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from sglang_hetero_spec.cuda.graphs.draft_graphs import DraftGraphs, ShapeGraphs
from sglang_hetero_spec.cuda.graphs.ladder import MOST_SIZES, Budget, GraphCost, batch_sizes, capture_order
from sglang_hetero_spec.cuda.reserve import bytes_of_a_graph
from sglang_hetero_spec.errors import first_line

logger = logging.getLogger(__name__)

# All draft models together; weights of a large target take longer to load.
GRAPH_SECONDS = 60.0
_NOTHING = GraphCost(0, 0.0)


@dataclass(frozen=True)
class CapturedRow:
    """What was captured for one draft model. sizes: by shape, as the table says it; problem: why no more, or None."""

    name: str
    sizes: tuple[str, ...]
    cost: GraphCost
    problem: str | None = None


def budget_of(models: Mapping[str, DraftGraphs], free_bytes: int) -> Budget:
    """What the server kept free for them (cuda.reserve), and at most half of what is free now: a user who gave
    --mem-fraction-static kept what they wanted."""
    num_shapes = sum(len(graphs.by_shape) for graphs in models.values())
    return Budget(min(num_shapes * MOST_SIZES * bytes_of_a_graph(), free_bytes // 2), GRAPH_SECONDS)


def capture_all(
    models: Mapping[str, DraftGraphs],
    budget: Budget,
    free_bytes: Callable[[], int],
    agree: Callable[[bool], bool] = bool,
) -> list[CapturedRow]:
    """Round by round one size for every shape of every model, so that where the budget ends all have about as much.

    models: by their drafters' names. free_bytes: of the device now. agree: whether all ranks say so; each measures its
    own costs, and none may capture or replay alone. A model whose capture fails drafts without graphs,
    and its row says why.
    """
    rounds = [
        (name, graphs, order)
        for name, graphs in models.items()
        for order in [capture_order(batch_sizes(graphs.largest, MOST_SIZES))]
    ]
    spent = dict.fromkeys(models, _NOTHING)
    problems: dict[str, str] = {}
    for number in range(MOST_SIZES):
        for name, graphs, order in rounds:
            for shape_graphs in graphs.by_shape.values():
                if name in problems or number >= len(order):
                    break
                if not agree(budget.holds(shape_graphs.last_cost)):
                    problems[name] = "the budget is spent"
                    break
                cost, problem = _capture(shape_graphs, order[number], free_bytes)
                if not agree(problem is None):
                    problems[name] = problem or "another rank could not capture it"
                    graphs.forget()
                    break
                budget = budget.without(cost)
                spent[name] = _sum(spent[name], cost)
    return [
        CapturedRow(name, tuple(map(_sizes, graphs.by_shape.values())), spent[name], problems.get(name))
        for name, graphs in models.items()
    ]


def _capture(graphs: ShapeGraphs, size: int, free_bytes: Callable[[], int]) -> tuple[GraphCost, str | None]:
    """What it cost, and why it failed."""
    free, start = free_bytes(), time.perf_counter()
    try:
        graphs.capture(size)
    except Exception as error:
        return _NOTHING, f"capturing {size} requests failed: {first_line(error)}"
    graphs.last_cost = GraphCost(max(free - free_bytes(), 0), time.perf_counter() - start)
    return graphs.last_cost, None


def _sum(left: GraphCost, right: GraphCost) -> GraphCost:
    return GraphCost(left.num_bytes + right.num_bytes, left.seconds + right.seconds)


def _sizes(graphs: ShapeGraphs) -> str:
    return f"{graphs.shape.kind} {graphs.shape.width}: {', '.join(map(str, graphs.sizes)) or '-'}"


def free_device_bytes() -> int:
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def print_captured(rows: Sequence[CapturedRow], budget: Budget) -> None:
    """The start-up table, and a warning for each model that drafts without graphs."""
    lines = [f"{'':24}{'memory':>10}{'seconds':>10}  tokens of each request: batch sizes"]
    for row in rows:
        mib, seconds = row.cost.num_bytes / (1 << 20), row.cost.seconds
        lines.append(f"{row.name:24}{mib:>6.0f} MiB{seconds:>10.1f}  {'; '.join(row.sizes)}")
    title = "HETERO's CUDA graphs of draft models, within %.0f MiB and %.0f seconds:\n%s"
    logger.info(title, budget.num_bytes / (1 << 20), budget.seconds, "\n".join(lines))
    for row in rows:
        if row.problem is not None:
            logger.warning(
                "HETERO: drafter %s has only the CUDA graphs in the table above (%s); batches that they do not hold are"
                " drafted for without graphs: slower, and nothing else.",
                row.name,
                row.problem,
            )
