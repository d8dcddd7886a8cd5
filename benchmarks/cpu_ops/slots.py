"""KV slot bookkeeping, and the copy of accepted KV: the loop takes a slice or a row per request."""

from __future__ import annotations

import torch

from benchmarks.cpu_ops.case import Case, Forms, lengths_of
from sglang_hetero_spec.cpu import spec_ops

DRAFTS, TOPK, STEPS = 8, 2, 4
LAYERS, SLOT_FLOATS = 4, 128
POOL_LEN = 8192


def _table(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """req_to_token and the requests' rows in it."""
    torch.manual_seed(0)
    table = torch.randint(1, 100_000, (size + 1, POOL_LEN), dtype=torch.int32)
    return table, torch.randperm(size) + 1


def write_slots(size: int, length: int) -> Forms:
    """`assign_req_to_token_pool`: the slots of the next step enter the table, DRAFTS of each request."""
    table, pool = _table(size)
    starts = lengths_of(size, length)
    ends = starts + DRAFTS
    slots = torch.arange(size * DRAFTS)

    def ours() -> torch.Tensor:
        spec_ops.assign_req_to_token_pool(pool, table, starts, ends, slots, POOL_LEN)
        return table

    def loop() -> torch.Tensor:
        done = 0
        for i in range(size):
            start, end = int(starts[i]), int(ends[i])
            table[pool[i], start:end] = slots[done : done + end - start].int()
            done += end - start
        return table

    return Forms(ours, loop)


def read_slots(size: int, length: int) -> Forms:
    """`assign_extend_cache_locs`: the slots that a verify step writes, read from the table."""
    table, pool = _table(size)
    starts = lengths_of(size, length)
    ends = starts + DRAFTS
    out = torch.zeros(size * DRAFTS, dtype=torch.int64)

    def ours() -> torch.Tensor:
        spec_ops.assign_extend_cache_locs(pool, table, starts, ends, out, POOL_LEN)
        return out

    def loop() -> torch.Tensor:
        done = 0
        for i in range(size):
            start, end = int(starts[i]), int(ends[i])
            out[done : done + end - start] = table[pool[i], start:end]
            done += end - start
        return out

    return Forms(ours, loop)


def read_draft_slots(size: int, length: int) -> Forms:
    """`assign_draft_cache_locs_contiguous`: TOPK * STEPS slots behind every request's committed tokens."""
    table, pool = _table(size)
    lengths = lengths_of(size, length)
    width = TOPK * STEPS
    out = torch.zeros(size * width, dtype=torch.int64)

    def ours() -> torch.Tensor:
        spec_ops.assign_draft_cache_locs_contiguous(pool, table, lengths, out, POOL_LEN, TOPK, STEPS)
        return out

    def loop() -> torch.Tensor:
        for i in range(size):
            start = int(lengths[i])
            out[i * width : (i + 1) * width] = table[pool[i], start : start + width]
        return out

    return Forms(ours, loop)


def draft_metadata(size: int, length: int) -> Forms:
    """`build_draft_decode_metadata`: a table row for each of a request's TOPK branches."""
    table, pool = _table(size)
    lengths = lengths_of(size, length)
    width = int(lengths.max()) + STEPS

    def ours() -> torch.Tensor:
        return spec_ops.build_draft_decode_metadata(table, pool, lengths, TOPK, STEPS, POOL_LEN)[:, :STEPS]

    def loop() -> torch.Tensor:
        rows = table.new_zeros((size * TOPK, width))
        for i in range(size):
            before, row = int(lengths[i]), table[pool[i]]
            for branch in range(TOPK):
                start = before + branch * STEPS
                rows[i * TOPK + branch, :before] = row[:before]
                rows[i * TOPK + branch, before : before + STEPS] = row[start : start + STEPS]
        return rows[:, :STEPS]

    return Forms(ours, loop)


def bonus_tokens(size: int, length: int) -> Forms:
    """`fill_bonus_tokens`: the last accepted token of each request."""
    torch.manual_seed(0)
    tokens = torch.randint(0, 1000, (size * DRAFTS,), dtype=torch.int32)
    accept_lens = torch.randint(1, DRAFTS + 1, (size,), dtype=torch.int32)
    out = torch.zeros(size, dtype=torch.int32)

    def ours() -> torch.Tensor:
        spec_ops.fill_bonus_tokens(tokens, accept_lens, out, DRAFTS)
        return out

    def loop() -> torch.Tensor:
        for i in range(size):
            out[i] = tokens[i * DRAFTS + accept_lens[i] - 1]
        return out

    return Forms(ours, loop)


def accepted_slots(size: int, length: int) -> Forms:
    """`fill_accept_out_cache_loc`: the slots of accepted nodes, packed."""
    index = _accept_index(size)
    slots = torch.arange(size * DRAFTS) + 1000
    out = torch.zeros(size * DRAFTS, dtype=torch.int64)

    def ours() -> torch.Tensor:
        spec_ops.fill_accept_out_cache_loc(index, slots, out)
        return out

    def loop() -> torch.Tensor:
        done = 0
        for i in range(size):
            mine = index[i][index[i] > -1]
            out[done : done + len(mine)] = slots[mine]
            done += len(mine)
        return out

    return Forms(ours, loop)


def _accept_index(size: int) -> torch.Tensor:
    """int32 [size, STEPS + 1], -1 behind the accepted nodes."""
    torch.manual_seed(0)
    nodes = torch.arange(size)[:, None] * DRAFTS + torch.arange(STEPS + 1)
    kept = torch.arange(STEPS + 1) < torch.randint(1, STEPS + 2, (size, 1))
    return torch.where(kept, nodes, -1).int()


def rotate(size: int, length: int) -> Forms:
    """`rotate_input_ids`: each segment moves one to the left and takes a new token; chunks of 32 tokens."""
    torch.manual_seed(0)
    lens = torch.randint(16, 33, (size,))
    starts = lens.cumsum(0) - lens
    ids = torch.randint(0, 1000, (int(lens.sum()),))
    new = torch.randint(0, 1000, (size,))

    def ours() -> torch.Tensor:
        spec_ops.rotate_input_ids(ids, starts, lens, new)
        return ids

    def loop() -> torch.Tensor:
        for i in range(size):
            start, end = int(starts[i]), int(starts[i] + lens[i])
            ids[start : end - 1] = ids[start + 1 : end].clone()
            ids[end - 1] = new[i]
        return ids

    return Forms(ours, loop)


def copy_kv(size: int, length: int) -> Forms:
    """`copy_all_layer_kv_cache`: accepted tokens of a tree move to the front of their block, STEPS of each request."""
    torch.manual_seed(0)
    slots = size * (DRAFTS + 1)
    buffers = [torch.randn(slots, SLOT_FLOATS) for _ in range(2 * LAYERS)]
    pointers = torch.tensor([buffer.data_ptr() for buffer in buffers], dtype=torch.uint64)
    strides = torch.tensor([buffer.stride(0) * buffer.element_size() for buffer in buffers])
    first = torch.arange(size)[:, None] * (DRAFTS + 1)
    target = (first + torch.arange(STEPS)).reshape(-1)
    source = (first + torch.tensor([0, 2, 5, 7])).reshape(-1)

    def ours() -> list[torch.Tensor]:
        spec_ops.copy_all_layer_kv_cache(pointers, strides, target, source)
        return buffers

    def loop() -> list[torch.Tensor]:
        for buffer in buffers:
            for i in range(size):
                mine = slice(i * STEPS, (i + 1) * STEPS)
                buffer[target[mine]] = buffer[source[mine]]
        return buffers

    return Forms(ours, loop)


CASES = (
    Case("write slots of a step", write_slots),
    Case("read slots of a step", read_slots),
    Case("read draft slots", read_draft_slots),
    Case("table of draft branches", draft_metadata, by_length=True),
    Case("bonus tokens", bonus_tokens),
    Case("accepted slots", accepted_slots),
    Case("rotate input ids", rotate),
    Case("copy accepted KV", copy_kv),
)
