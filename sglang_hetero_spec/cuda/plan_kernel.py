"""The Triton kernels that fill the device's part of a TreePlan. Imported only where they run."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def page_kernel(table, rows, starts, indptr, pages, table_stride, PAGE: tl.constexpr, BLOCK: tl.constexpr):
    """Page numbers of the prefix call, one program per request and BLOCK pages.

    table: int32 [rows, table_stride], the slot of each token; rows: int64 [b]; starts: int32 [b], first token, the
    first of its page; indptr: int32 [b + 1], places in pages, int32.
    """
    request = tl.program_id(0)
    first = tl.load(indptr + request)
    count = tl.load(indptr + request + 1) - first
    number = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = number < count
    token = tl.load(starts + request) + number * PAGE
    slot = tl.load(table + tl.load(rows + request) * table_stride + token, mask=inside, other=0)
    tl.store(pages + first + number, slot // PAGE, mask=inside)


@triton.jit(do_not_specialize=["width", "window_left"])
def tree_call_kernel(
    table,
    rows,
    seq_lens,
    edge_starts,
    prefix_starts,
    kv_indptr,
    mask_indptr,
    positions,
    tree_mask,
    slots,
    packed,
    table_stride,
    width,
    window_left,
    BLOCK: tl.constexpr,
):
    """Slots and packed mask of the tree call, one program per request and BLOCK bytes of mask.

    table, rows: as above. seq_lens: int64 [b]; edge_starts, prefix_starts, kv_indptr, mask_indptr: of the TreePlan.
    positions: int64 [b * width]; tree_mask: uint8 [b * width * width], row sees column.
    slots: int32, written at kv_indptr; packed: uint8, written at mask_indptr, the first cell in the lowest bit.
    """
    request = tl.program_id(0)
    length = tl.load(seq_lens + request).to(tl.int32)
    edge_start = tl.load(edge_starts + request)
    edge = tl.load(prefix_starts + request) - edge_start
    columns = edge + width
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)

    is_key = unit < columns
    token = tl.where(unit < edge, edge_start + unit, length + unit - edge)
    slot = tl.load(table + tl.load(rows + request) * table_stride + token, mask=is_key, other=0)
    tl.store(slots + tl.load(kv_indptr + request) + unit, slot, mask=is_key)

    cell = unit[:, None] * 8 + tl.arange(0, 8)[None, :]
    inside = cell < width * columns
    node = cell // columns
    column = cell % columns
    nodes = positions + request * width
    position = tl.load(nodes + node, mask=inside, other=0).to(tl.int32)
    in_tree = inside & (column >= edge)
    other = column - edge
    key = tl.load(nodes + other, mask=in_tree, other=0).to(tl.int32)
    key = tl.where(in_tree, key, edge_start + column)
    above = tl.load(tree_mask + (request * width + node) * width + other, mask=in_tree, other=1)
    near = (window_left < 0) | (position - key <= window_left)
    bits = (inside & (above != 0) & near).to(tl.int32) << tl.arange(0, 8)[None, :]
    byte = tl.sum(bits, axis=1).to(tl.uint8)
    first = tl.load(mask_indptr + request)
    tl.store(packed + first + unit, byte, mask=unit < tl.cdiv(width * columns, 8))
