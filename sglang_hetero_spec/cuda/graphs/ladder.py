"""Which shapes to capture as CUDA graphs, in which order, and until when. Whole numbers and seconds, no GPU.

A batch runs in the smallest captured size that holds it, so any set of sizes serves: what a budget leaves out costs
padding, or a forward without a graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Batch sizes of each shape, at most.
MOST_SIZES = 6


@dataclass(frozen=True)
class GraphCost:
    """Of one captured graph: bytes that it keeps, and seconds that the capture took."""

    num_bytes: int
    seconds: float


@dataclass(frozen=True)
class Budget:
    """What all captures may cost together."""

    num_bytes: int
    seconds: float

    def holds(self, cost: GraphCost) -> bool:
        return cost.num_bytes <= self.num_bytes and cost.seconds <= self.seconds

    def without(self, cost: GraphCost) -> Budget:
        return Budget(self.num_bytes - cost.num_bytes, self.seconds - cost.seconds)


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


def capture_order(sizes: Sequence[int]) -> tuple[int, ...]:
    """The largest first, whose memory the smaller ones use again; then each time the size that saves the largest share
    of padding, where every number of requests is as likely on a scale of factors."""
    if not sizes:
        return ()
    order = [max(sizes)]
    while left := sorted(set(sizes) - set(order)):
        order.append(min(left, key=lambda size: _padded_share([*order, size], max(sizes))))
    return tuple(order)


def _padded_share(kept: Sequence[int], largest: int) -> float:
    """Sum over batches of 1 to `largest` requests of size / requests, each weighted by 1 / requests."""
    return sum(min(size for size in kept if size >= requests) / requests**2 for requests in range(1, largest + 1))


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
