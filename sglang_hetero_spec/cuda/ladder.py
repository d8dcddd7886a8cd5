"""Which shapes to capture as CUDA graphs, within a budget of memory and seconds. Whole numbers, no GPU.

What is captured: drafting (one token per request, per draft model), verification (few widths; see `widths`) and
catch-up (a window of tokens per request, per draft model). A batch runs in the smallest captured size that holds it.

Nothing captures by this yet: SGLang captures the target's verification at one width by its own list, and drafters run
without graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class GraphCost:
    """Of one captured shape, for the model at hand: bytes that stay, and seconds to capture it."""

    num_bytes: int
    seconds: float


@dataclass(frozen=True)
class Budget:
    num_bytes: int
    seconds: float

    def holds(self, cost: GraphCost, number: int) -> bool:
        return cost.num_bytes * number <= self.num_bytes and cost.seconds * number <= self.seconds

    def without(self, cost: GraphCost, number: int) -> Budget:
        return Budget(self.num_bytes - cost.num_bytes * number, self.seconds - cost.seconds * number)


def batch_sizes(largest: int, number: int) -> tuple[int, ...]:
    """At most `number` sizes up to `largest`, 1 and `largest` among them, in even steps of a factor: a batch is padded
    by about the same share wherever it falls."""
    if number < 1 or largest < 1:
        return ()
    if number == 1 or largest == 1:
        return (largest,)
    factor = largest ** (1 / (number - 1))
    sizes = {1, largest} | {round(factor**step) for step in range(1, number - 1)}
    return tuple(sorted(sizes))


def widths(proposed: Sequence[int], number: int) -> tuple[int, ...]:
    """At most `number` verify widths for drafters whose trees have `proposed` nodes: the widest, for a mixed batch, and
    those below it that save the most padding, each drafter counted once. 1 is for a batch that nobody drafts for."""
    wanted = sorted({1, *proposed})
    if number < 1:
        return ()
    kept = {wanted[-1]}
    while len(kept) < min(number, len(wanted)):
        kept.add(min(sorted(set(wanted) - kept), key=lambda width: _padding([1, *proposed], kept | {width})))
    return tuple(sorted(kept))


def _padding(proposed: Sequence[int], kept: set[int]) -> int:
    return sum(min(width for width in kept if width >= nodes) - nodes for nodes in proposed)


@dataclass(frozen=True)
class Ladder:
    """drafting, catch_up: batch sizes for each draft model, by name; verify: (batch size, width) pairs."""

    drafting: dict[str, tuple[int, ...]]
    catch_up: dict[str, tuple[int, ...]]
    verify: tuple[tuple[int, int], ...]

    @property
    def num_graphs(self) -> int:
        parts = (*self.drafting.values(), *self.catch_up.values())
        return len(self.verify) + sum(len(sizes) for sizes in parts)


def plan_ladder(
    largest: int,
    proposed: dict[str, int],
    verify_cost: GraphCost,
    draft_costs: dict[str, GraphCost],
    budget: Budget,
    most_sizes: int = 8,
    most_widths: int = 3,
) -> Ladder:
    """The richest ladder that the budget holds. What is given up first: catch-up, widths, then steps between sizes.

    largest: requests in a batch. proposed: nodes of each drafter's trees, by name; draft_costs: of those with a model.
    Nothing at all where not even one size of the widest verification fits.
    """
    names = list(draft_costs)
    for num_sizes in range(most_sizes, 0, -1):
        sizes = batch_sizes(largest, num_sizes)
        for num_widths in range(most_widths, 0, -1):
            kept = widths(list(proposed.values()), num_widths)
            verify = tuple((size, width) for width in kept for size in sizes)
            for with_catch_up in (True, False):
                rounds = [(verify_cost, len(verify))]
                rounds += [(draft_costs[name], len(sizes) * (2 if with_catch_up else 1)) for name in names]
                if _fits(budget, rounds):
                    drafting = dict.fromkeys(names, sizes)
                    return Ladder(drafting, dict.fromkeys(names, sizes) if with_catch_up else {}, verify)
    return Ladder({}, {}, ())


def _fits(budget: Budget, rounds: list[tuple[GraphCost, int]]) -> bool:
    for cost, number in rounds:
        if not budget.holds(cost, number):
            return False
        budget = budget.without(cost, number)
    return True
