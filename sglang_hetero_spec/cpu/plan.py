"""Index tensors of one forward, shared by its layers: which table entries each request reads, who may see what.

A plan depends on lengths, rows and masks only. The table itself is read again by every layer, so that a plan can be
kept as long as those are equal. Requests of very different length are served in groups, so that a short one is not
padded to the longest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch

# A batch's padded area may be this many times the area of what it holds before it is split.
_MAX_WASTE = 1.25
# Below this many elements padding costs less than one more round of kernel calls.
_SMALL_AREA = 4096
# Padded keys of a group of several requests: what is gathered should still be in the processor's cache when it is read.
_MAX_KEYS = 4096
# Masks up to this many elements are kept with the plan in the form that the attention kernel takes.
_KEPT_BIAS = 1 << 20


@dataclass
class Group:
    """Requests that share one padded attention call: g requests, Q queries and L keys each.

    entries: int64 [g * L], places in the flattened table, padded with the request's first one (its weight is zero,
    but the memory behind it must be finite). mask: bool [g, Q, L], or None if all is visible.
    queries: int64 [g * Q] rows of the packed query tensor, or None when they are rows first, first + 1, ...
    kept: int64, which of the g * Q are real, or None when all are; outputs: int64, their rows, or None if in order.
    fresh: int64, places in [g * L] of this forward's tokens; fresh_rows: their rows in packed k and v, None if in
    order.
    """

    size: int
    width: int
    length: int
    first: int
    queries: torch.Tensor | None
    entries: torch.Tensor
    mask: torch.Tensor | None
    kept: torch.Tensor | None
    outputs: torch.Tensor | None
    fresh: torch.Tensor
    fresh_rows: torch.Tensor | None
    _bias: dict[tuple[int, torch.dtype], torch.Tensor] = field(default_factory=dict)

    def bias(self, share: int, start: int, stop: int, dtype: torch.dtype) -> torch.Tensor | None:
        """The mask as numbers to add to logits, for queries [start, stop), `share` heads after one another.

        Returns dtype [g, 1, share * (stop - start), L] of 0 and -inf, or None if all is visible.
        """
        if self.mask is None:
            return None
        whole = (stop - start) == self.width and self.mask.numel() * share <= _KEPT_BIAS
        if whole and (share, dtype) in self._bias:
            return self._bias[share, dtype]
        seen = self.mask[:, None, start:stop]
        bias = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))
        bias = bias.expand(-1, share, -1, -1).reshape(self.size, 1, share * (stop - start), self.length)
        if whole:
            self._bias[share, dtype] = bias
        return bias


class Shape(NamedTuple):
    """One attention call as the host sees it; b requests.

    rows: their rows in the table. lengths: keys of each, this forward's included. fresh: this forward's tokens.
    first: row of a request's first token in the packed tensors. offset: table entries in front that the layer does not
    read (encoder tokens). window: a query sees keys less than this far behind it, 0 for no limit. columns: entries per
    table row.
    """

    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    fresh: tuple[int, ...]
    first: tuple[int, ...]
    offset: tuple[int, ...]
    window: int
    causal: bool
    columns: int


class PlanCache:
    """The latest plans, by what they were made from."""

    def __init__(self, capacity: int = 8) -> None:
        self._capacity = capacity
        self._plans: dict[Shape, tuple[torch.Tensor | None, list[Group]]] = {}

    def get(self, shape: Shape, tree_mask: torch.Tensor | None) -> list[Group]:
        """tree_mask: bool, flat [b * D * D], over this forward's tokens, or None for chains; compared by value."""
        known = self._plans.get(shape)
        if known is not None and _same(known[0], tree_mask):
            return known[1]
        nodes = max(shape.fresh, default=0)
        trees = None if tree_mask is None else tree_mask.view(len(shape.fresh), nodes, nodes).bool()
        groups = make_plan(shape, trees)
        self._plans.pop(shape, None)
        while len(self._plans) >= self._capacity:
            del self._plans[next(iter(self._plans))]
        # The caller's mask may be a buffer that is written again.
        self._plans[shape] = (None if tree_mask is None else tree_mask.clone(), groups)
        return groups


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)


def make_plan(shape: Shape, tree_mask: torch.Tensor | None = None) -> list[Group]:
    """Groups that together cover every new token of every request once."""
    busy = [i for i, count in enumerate(shape.fresh) if count > 0]
    if not busy:
        return []
    lengths = [max(shape.lengths[i], 1) for i in busy]
    areas = [shape.fresh[i] * length for i, length in zip(busy, lengths, strict=True)]
    return [_make_group(shape, tree_mask, [busy[i] for i in part]) for part in split(areas, lengths)]


def split(areas: list[int], lengths: list[int]) -> list[list[int]]:
    """Group requests of alike size: lists of request numbers, each ascending.

    areas: what each costs alone, queries times keys; lengths: its keys.
    """
    if _fits(max(areas) * len(areas), sum(areas), max(lengths) * len(areas)):
        return [list(range(len(areas)))]
    groups: list[list[int]] = []
    held = longest = 0
    for request in sorted(range(len(areas)), key=lambda i: -areas[i]):
        longest = max(longest, lengths[request])
        size = len(groups[-1]) + 1 if groups else 0
        if not groups or not _fits(areas[groups[-1][0]] * size, held + areas[request], longest * size):
            groups.append([])
            held, longest = 0, lengths[request]
        groups[-1].append(request)
        held += areas[request]
    return [sorted(group) for group in groups]


def _fits(padded_area: int, held_area: int, padded_keys: int) -> bool:
    return padded_area <= max(_MAX_WASTE * held_area, _SMALL_AREA) and padded_keys <= _MAX_KEYS


def _make_group(shape: Shape, tree_mask: torch.Tensor | None, members: list[int]) -> Group:
    fresh = [shape.fresh[i] for i in members]
    starts, lengths = _visible_range(shape, members, tree_mask)
    width, length = max(fresh), max(*lengths, 1)
    counts = torch.tensor(fresh)
    steps = torch.arange(width)
    live = steps < counts[:, None]
    packed = torch.tensor([shape.first[i] for i in members])[:, None] + torch.minimum(steps, counts[:, None] - 1)
    packed = packed.reshape(-1)
    even = min(fresh) == width
    kept = None if even else live.reshape(-1).nonzero().squeeze(1)
    begin = shape.first[members[0]]
    in_order = even and all(shape.first[i] == begin + k * width for k, i in enumerate(members))
    rows = None if in_order else packed if kept is None else packed[kept]

    real = torch.arange(length) < torch.tensor(lengths)[:, None]
    columns = torch.where(real, torch.arange(length), 0) + torch.tensor(starts)[:, None]
    entries = torch.tensor([shape.rows[i] for i in members])[:, None] * shape.columns + columns
    # Position of the first new token among the keys; what is not causal (an encoder) keeps its own keys in the cache.
    prefix = torch.tensor(lengths) - counts
    mask = _mask(shape, prefix, live, real, None if tree_mask is None else tree_mask[members])
    fresh_places = (torch.arange(len(members))[:, None] * length + prefix[:, None] + steps)[live]
    return Group(
        size=len(members),
        width=width,
        length=length,
        first=begin,
        queries=None if in_order else packed,
        entries=entries.reshape(-1),
        mask=mask,
        kept=kept,
        outputs=rows,
        fresh=fresh_places,
        fresh_rows=rows,
    )


def _visible_range(shape: Shape, members: list[int], tree_mask: torch.Tensor | None) -> tuple[list[int], list[int]]:
    """First table entry and number of keys that any of a request's queries sees."""
    starts = [shape.offset[i] for i in members]
    lengths = [shape.lengths[i] for i in members]
    if shape.window <= 0 or not shape.causal or tree_mask is not None:
        return starts, lengths
    # The oldest query sees window - 1 keys before itself.
    hidden = [max(0, shape.lengths[i] - shape.fresh[i] - shape.window + 1) for i in members]
    starts = [start + skip for start, skip in zip(starts, hidden, strict=True)]
    return starts, [length - skip for length, skip in zip(lengths, hidden, strict=True)]


def _mask(
    shape: Shape, prefix: torch.Tensor, live: torch.Tensor, real: torch.Tensor, tree_mask: torch.Tensor | None
) -> torch.Tensor | None:
    """bool [g, Q, L]: which key each query sees; None if all see all.

    prefix: int64 [g], keys before the new tokens; live: bool [g, Q]; real: bool [g, L].
    """
    width, columns = live.shape[1], torch.arange(real.shape[1])
    if not shape.causal:
        mask = real[:, None, :].expand(-1, width, -1).clone()
    elif tree_mask is None:
        positions = (prefix[:, None] + torch.arange(width))[:, :, None]
        mask = real[:, None, :] & (columns <= positions)
        if shape.window > 0:
            mask &= columns > positions - shape.window
    else:
        mask = real[:, None, :] & _tree_visibility(shape.window, prefix, width, columns, tree_mask)
    # Padding queries would see nothing, and softmax over nothing is not a number.
    mask[:, :, 0] |= ~mask.any(dim=-1)
    return None if bool(mask.all()) else mask


def _tree_visibility(
    window: int, prefix: torch.Tensor, width: int, columns: torch.Tensor, tree_mask: torch.Tensor
) -> torch.Tensor:
    """Prefix and ancestors. With a window, distance is counted along the tree's path, as if the path were committed."""
    node = columns - prefix[:, None]
    inside = (node >= 0) & (node < width)
    index = node.clamp(0, width - 1)
    seen = tree_mask[:, :width, :width].gather(2, index[:, None, :].expand(-1, width, -1))
    mask = (node < 0)[:, None, :] | (inside[:, None, :] & seen)
    if window > 0:
        depth = tree_mask[:, :width, :width].tril(-1).sum(-1)
        position = torch.where(inside, prefix[:, None] + depth.gather(1, index), columns.expand_as(node))
        mask &= position[:, None, :] > (prefix[:, None] + depth - window)[:, :, None]
    return mask
