"""The Triton kernel behind `cuda.merge`. Imported only where it runs: Triton is not everywhere."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["width"])
def merge_kernel(
    table,
    roots,
    seq_lens,
    tokens,
    parents,
    positions,
    next_child,
    next_sibling,
    mask,
    width,
    COLUMNS: tl.constexpr,
    FULL_MASK: tl.constexpr,
    BATCH_BLOCK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program per request: its tree copied to its row, and everything that verification wants to know of it.

    table: int64 [b, COLUMNS], a row for each request (`cuda.merge.source_table`): addresses of its proposal's tokens
        and parents, their strides in elements, nodes (0: no proposal).
    roots, seq_lens: int64 [b]. Outputs as in MergedTree and TreeLayout, positions with the prefix: int64 [b, width].
    mask: uint8, flat: [b, width, width] or, with FULL_MASK, every row behind its prefix (which is left as it is).
    BLOCK, BATCH_BLOCK: powers of two, at least width and b.
    """
    row = tl.program_id(0).to(tl.int64)
    entry = table + row * COLUMNS
    token_source = tl.load(entry).to(tl.pointer_type(tl.int64))
    token_stride = tl.load(entry + 1)
    parent_source = tl.load(entry + 2).to(tl.pointer_type(tl.int64))
    parent_stride = tl.load(entry + 3)
    num_nodes = tl.load(entry + 4)

    nodes = tl.arange(0, BLOCK)
    inside = nodes < width
    proposed = nodes < num_nodes
    out = row * width + nodes
    token = tl.load(token_source + nodes * token_stride, mask=proposed, other=0)
    tl.store(tokens + out, tl.where(proposed, token, tl.load(roots + row)), mask=inside)
    parent = tl.load(parent_source + nodes * parent_stride, mask=proposed, other=-1).to(tl.int32)
    tl.store(parents + out, parent.to(tl.int64), mask=inside)

    # Row: the node asked about; column: the other node. Nodes beyond the width have parent -1 and are nobody's.
    others = nodes[None, :]
    is_child = parent[None, :] == nodes[:, None]
    child = tl.min(tl.where(is_child, others, BLOCK), axis=1)
    tl.store(next_child + out, tl.where(child < BLOCK, child, -1).to(tl.int64), mask=inside)
    hangs = parent >= 0
    is_later = (parent[None, :] == parent[:, None]) & hangs[:, None] & (others > nodes[:, None])
    sibling = tl.min(tl.where(is_later, others, BLOCK), axis=1)
    tl.store(next_sibling + out, tl.where(sibling < BLOCK, sibling, -1).to(tl.int64), mask=inside)

    # All nodes walk to their roots together; the loop is as long as the deepest path.
    at = tl.where(inside, nodes, -1)
    seen = at[:, None] == others
    depth = tl.zeros([BLOCK], dtype=tl.int32)
    at = tl.where(inside, parent, -1)
    while tl.max(at, axis=0) >= 0:
        alive = at >= 0
        seen = seen | (alive[:, None] & (at[:, None] == others))
        depth += alive.to(tl.int32)
        above = tl.load(parent_source + at * parent_stride, mask=alive, other=-1)
        at = tl.where(alive, above, -1).to(tl.int32)
    offset = tl.where(hangs | (nodes == 0), depth, 1)
    length = tl.load(seq_lens + row)
    tl.store(positions + out, length + offset, mask=inside)

    if FULL_MASK:
        batch = tl.arange(0, BATCH_BLOCK)
        earlier = batch < row
        lengths = tl.load(seq_lens + batch, mask=earlier, other=0)
        start = width * (tl.sum(lengths, axis=0) + row * width) + length
        stride = length + width
    else:
        start = row * width * width
        stride = tl.zeros_like(length) + width
    cells = start + nodes[:, None] * stride + others
    tl.store(mask + cells, seen.to(tl.uint8), mask=inside[:, None] & inside[None, :])
