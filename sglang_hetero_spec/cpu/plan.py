"""Index tensors of one forward, shared by its layers: which KV slots each request reads, who may see what.

Requests of very different length are served in groups, so that a short one is not padded to the longest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

# A group's padded area may be this many times the area of what it holds before it is split.
_MAX_WASTE = 2.0
# Below this many elements padding costs less than one more kernel call.
_SMALL_AREA = 4096


@dataclass(frozen=True)
class Group:
    """Requests that share one padded attention call.

    queries: int64 [g * Q] rows of the packed query tensor, or None when they are rows [first, first + g * Q) in order.
    keys: int [g * L] KV slots, padded with the request's first slot. mask: bool [g, Q, L] or None if all is visible.
    kept: int64 places in [g * Q] that are real queries, or None when all are. outputs: int64 rows for those.
    fresh: int64 places in [g * L] of the tokens of this forward, and fresh_rows their rows in packed k and v.
    """

    size: int
    width: int
    length: int
    first: int
    queries: torch.Tensor | None
    keys: torch.Tensor
    mask: torch.Tensor | None
    kept: torch.Tensor | None
    outputs: torch.Tensor | None
    fresh: torch.Tensor | None = None
    fresh_rows: torch.Tensor | None = None


def split(areas: list[int]) -> list[list[int]]:
    """Group requests of alike size: lists of request numbers, each ascending; areas are what each costs alone."""
    if len(areas) == 1 or max(areas) * len(areas) <= max(_MAX_WASTE * sum(areas), _SMALL_AREA):
        return [list(range(len(areas)))]
    order = sorted(range(len(areas)), key=lambda i: -areas[i])
    groups: list[list[int]] = []
    held = 0
    for request in order:
        top = areas[groups[-1][0]] if groups else 0
        fits = groups and top * (len(groups[-1]) + 1) <= max(_MAX_WASTE * (held + areas[request]), _SMALL_AREA)
        if not fits:
            groups.append([])
            held = 0
        groups[-1].append(request)
        held += areas[request]
    return [sorted(group) for group in groups]


def gather_slots(
    req_to_token: torch.Tensor, rows: torch.Tensor, starts: list[int], ends: list[int]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """KV slots of positions [start, end) of each request: [g, L] and, unless all are L long, which are real.

    Padding repeats the first slot: its weight is zero, but the memory behind it must be finite.
    """
    lengths = [end - start for start, end in zip(starts, ends, strict=True)]
    longest = max(max(lengths), 1)
    if not any(starts):
        table = req_to_token[:, :longest].index_select(0, rows)
    else:
        columns = torch.tensor(starts)[:, None] + torch.arange(longest)
        table = req_to_token[rows[:, None], columns.clamp_(max=req_to_token.shape[1] - 1)]
    if min(lengths) == longest:
        return table, None
    real = torch.arange(longest) < torch.tensor(lengths)[:, None]
    first = torch.where(real[:, :1], table[:, :1], torch.zeros_like(table[:, :1]))
    return torch.where(real, table, first), real


def plan_decode(req_to_token: torch.Tensor, rows: torch.Tensor, starts: list[int], ends: list[int]) -> list[Group]:
    """One query per request over KV positions [start, end)."""
    groups = []
    parts = split([end - start for start, end in zip(starts, ends, strict=True)])
    for part in parts:
        index = None if len(parts) == 1 else torch.tensor(part)
        part_rows = rows if index is None else rows[index]
        keys, real = gather_slots(req_to_token, part_rows, [starts[i] for i in part], [ends[i] for i in part])
        if real is not None:
            real = visible_somewhere(real[:, None, :])
        groups.append(
            Group(
                size=len(part),
                width=1,
                length=keys.shape[1],
                first=0,
                queries=index,
                keys=keys.reshape(-1),
                mask=real,
                kept=None,
                outputs=index,
            )
        )
    return groups


def visible_somewhere(mask: torch.Tensor) -> torch.Tensor:
    """Let rows that see nothing (padding) see column 0: softmax over nothing is NaN. mask: bool [..., L]."""
    blind = ~mask.any(dim=-1)
    mask[..., 0] |= blind
    return mask


@dataclass(frozen=True)
class ExtendShape:
    """What an extend call is, on the host.

    lengths: KV tokens of each request, this forward's included. fresh: this forward's tokens. first: row of a request's
    first token in the packed tensors. offset: KV positions in front that the layer does not read (encoder tokens).
    window: a query sees keys less than this far behind it; 0 for no limit.
    """

    lengths: list[int]
    fresh: list[int]
    first: list[int]
    offset: list[int]
    window: int
    causal: bool
    cross: bool


def plan_extend(
    req_to_token: torch.Tensor, rows: torch.Tensor, shape: ExtendShape, tree_mask: torch.Tensor | None
) -> list[Group]:
    """Several queries per request. tree_mask: bool [b, D, D] over this forward's tokens, or None for a chain."""
    busy = [i for i, count in enumerate(shape.fresh) if count > 0]
    if not busy:
        return []
    areas = [shape.fresh[i] * max(shape.lengths[i], 1) for i in busy]
    groups = []
    for part in split(areas):
        members = [busy[i] for i in part]
        groups.append(_extend_group(req_to_token, rows, shape, tree_mask, members))
    return groups


def _extend_group(
    req_to_token: torch.Tensor,
    rows: torch.Tensor,
    shape: ExtendShape,
    tree_mask: torch.Tensor | None,
    members: list[int],
) -> Group:
    everyone = len(members) == len(shape.fresh)
    index = torch.tensor(members)
    fresh = [shape.fresh[i] for i in members]
    width = max(fresh)
    starts = [shape.offset[i] for i in members]
    lengths = [shape.lengths[i] for i in members]
    ends = [start + length for start, length in zip(starts, lengths, strict=True)]
    keys, real = gather_slots(req_to_token, rows if everyone else rows[index], starts, ends)
    length = keys.shape[1]

    first = torch.tensor([shape.first[i] for i in members])
    counts = torch.tensor(fresh)
    steps = torch.arange(width)
    live = steps < counts[:, None]
    packed = first[:, None] + torch.minimum(steps, counts[:, None] - 1)
    even = min(fresh) == width
    in_order = even and all(shape.first[i] == shape.first[members[0]] + k * width for k, i in enumerate(members))
    kept = None if even else live.reshape(-1).nonzero().squeeze(1)
    packed = packed.reshape(-1)

    prefix = torch.tensor(lengths) - counts
    mask = _extend_mask(shape, prefix, live, real, length, None if tree_mask is None else tree_mask[index])
    places = None
    if not shape.cross:
        places = (torch.arange(len(members))[:, None] * length + prefix[:, None] + steps)[live]
    return Group(
        size=len(members),
        width=width,
        length=length,
        first=shape.first[members[0]],
        queries=None if in_order else packed,
        keys=keys.reshape(-1),
        mask=mask,
        kept=kept,
        outputs=None if in_order else (packed if kept is None else packed[kept]),
        fresh=places,
        fresh_rows=None if in_order else (packed if kept is None else packed[kept]),
    )


def _extend_mask(
    shape: ExtendShape,
    prefix: torch.Tensor,
    live: torch.Tensor,
    real: torch.Tensor | None,
    length: int,
    tree_mask: torch.Tensor | None,
) -> torch.Tensor | None:
    """bool [g, Q, L]: which key each query sees; None if all see all. prefix: int64 [g]; live: bool [g, Q]."""
    batch, width = live.shape
    columns = torch.arange(length)
    if shape.cross or not shape.causal:
        mask = None if real is None else real[:, None, :].expand(batch, width, length).clone()
    elif tree_mask is None:
        positions = prefix[:, None] + torch.arange(width)
        mask = columns <= positions[:, :, None]
        if shape.window > 0:
            mask &= columns > (positions - shape.window)[:, :, None]
    else:
        mask = _tree_visibility(shape.window, prefix, width, columns, tree_mask)
    if mask is None:
        return None
    if real is not None:
        mask &= real[:, None, :]
    if not bool(live.all()) or real is not None or tree_mask is not None:
        mask = visible_somewhere(mask)
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
        key_position = torch.where(inside, prefix[:, None] + depth.gather(1, index), columns.expand_as(node))
        mask &= key_position[:, None, :] > (prefix[:, None] + depth - window)[:, :, None]
    return mask
