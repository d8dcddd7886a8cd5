"""Slot bookkeeping against plain loops."""

from __future__ import annotations

import random

import pytest
import torch

from sglang_hetero_spec.cpu import spec_ops

INTS = [torch.int32, torch.int64]


def make_table(rng, requests=6, columns=40):
    values = list(range(1, requests * columns + 1))
    rng.shuffle(values)
    return torch.tensor(values, dtype=torch.int32).view(requests, columns)


def ragged(rng, batch):
    starts = [rng.randint(0, 20) for _ in range(batch)]
    return starts, [s + rng.choice([0, 1, rng.randint(0, 12)]) for s in starts]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dtype", INTS)
def test_assign_req_to_token_pool(seed, dtype):
    rng = random.Random(seed)
    table = make_table(rng)
    pool = rng.sample(range(6), rng.randint(1, 6))
    starts, ends = ragged(rng, len(pool))
    new = torch.arange(1000, 1000 + sum(ends) - sum(starts) + 2)
    want, source = table.clone(), iter(new.tolist())
    for row, start, end in zip(pool, starts, ends, strict=True):
        for column in range(start, end):
            want[row, column] = next(source)
    spec_ops.assign_req_to_token_pool(
        torch.tensor(pool), table, torch.tensor(starts, dtype=dtype), torch.tensor(ends, dtype=dtype), new, 40
    )
    assert torch.equal(table, want)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dtype", INTS)
def test_assign_extend_cache_locs(seed, dtype):
    rng = random.Random(seed)
    table = make_table(rng)
    pool = rng.sample(range(6), rng.randint(1, 6))
    starts, ends = ragged(rng, len(pool))
    want = [int(table[r, c]) for r, s, e in zip(pool, starts, ends, strict=True) for c in range(s, e)]
    out = torch.full((len(want) + 2,), -7)
    spec_ops.assign_extend_cache_locs(
        torch.tensor(pool, dtype=dtype),
        table,
        torch.tensor(starts, dtype=dtype),
        torch.tensor(ends, dtype=dtype),
        out,
        40,
    )
    assert out.tolist() == [*want, -7, -7]


@pytest.mark.parametrize("seed", range(4))
def test_assign_draft_cache_locs_contiguous(seed):
    rng = random.Random(seed)
    table = make_table(rng)
    pool, topk, steps = rng.sample(range(6), rng.randint(1, 6)), rng.randint(1, 3), rng.randint(1, 4)
    lens = [rng.randint(0, 20) for _ in pool]
    want = [int(table[r, n + k]) for r, n in zip(pool, lens, strict=True) for k in range(topk * steps)]
    out = torch.zeros(len(want), dtype=torch.int64)
    spec_ops.assign_draft_cache_locs_contiguous(torch.tensor(pool), table, torch.tensor(lens), out, 40, topk, steps)
    assert out.tolist() == want


def test_fill_bonus_tokens():
    tokens = torch.tensor([5, 6, 7, 8, 9, 10, 11, 12, 13], dtype=torch.int32)
    bonus = torch.zeros(3, dtype=torch.int32)
    spec_ops.fill_bonus_tokens(tokens, torch.tensor([1, 3, 2], dtype=torch.int32), bonus, 3)
    assert bonus.tolist() == [5, 10, 12]


def test_fill_accept_out_cache_loc():
    out = torch.zeros(5, dtype=torch.int64)
    index = torch.tensor([[0, 2, -1], [3, -1, -1]], dtype=torch.int32)
    spec_ops.fill_accept_out_cache_loc(index, torch.tensor([10, 11, 12, 13, 14, 15]), out)
    assert out.tolist() == [10, 12, 13, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_build_draft_decode_metadata(seed):
    rng = random.Random(seed)
    table = make_table(rng)
    pool, topk, steps = rng.sample(range(6), rng.randint(1, 6)), rng.randint(1, 3), rng.randint(1, 4)
    lens = [rng.choice([0, rng.randint(0, 20)]) for _ in pool]
    got = spec_ops.build_draft_decode_metadata(table, torch.tensor(pool), torch.tensor(lens), topk, steps, 40)
    assert got.dtype == torch.int32 and got.shape[0] == len(pool) * topk
    for i, (row, length) in enumerate(zip(pool, lens, strict=True)):
        for branch in range(topk):
            start = length + branch * steps
            want = [*table[row, :length].tolist(), *table[row, start : start + steps].tolist()]
            assert got[i * topk + branch, : length + steps].tolist() == want


def test_build_draft_decode_metadata_of_nothing():
    none = torch.zeros(0, dtype=torch.int64)
    assert spec_ops.build_draft_decode_metadata(make_table(random.Random(0)), none, none, 2, 3, 40).shape[0] == 0


@pytest.mark.parametrize("selected", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_rotate_input_ids(seed, selected):
    rng = random.Random(seed)
    lens = [rng.choice([0, 1, rng.randint(1, 6)]) for _ in range(rng.randint(1, 5))]
    starts = [sum(lens[:i]) for i in range(len(lens))]
    ids = [rng.randint(0, 99) for _ in range(sum(lens))]
    new = [rng.randint(100, 199) for _ in lens]
    places = [s + rng.randrange(n) if n else 0 for s, n in zip(starts, lens, strict=True)]
    want = list(ids)
    for start, count, token, place in zip(starts, lens, new, places, strict=True):
        if count:
            want[start : start + count - 1] = ids[start + 1 : start + count]
            want[place if selected else start + count - 1] = token
    got = torch.tensor(ids, dtype=torch.int64)
    spec_ops.rotate_input_ids(
        got,
        torch.tensor(starts, dtype=torch.int32),
        torch.tensor(lens),
        torch.tensor(new),
        torch.tensor(places) if selected else None,
    )
    assert got.tolist() == want


@pytest.mark.parametrize("shape", [(20, 2, 8), (20, 3, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_copy_all_layer_kv_cache(shape, dtype):
    buffers = [torch.randn(shape).to(dtype) for _ in range(3)]
    before = [b.clone() for b in buffers]
    target, source = torch.tensor([3, 4, 5, 9]), torch.tensor([4, 5, 9, 1])
    spec_ops.copy_all_layer_kv_cache(
        torch.tensor([b.data_ptr() for b in buffers], dtype=torch.uint64),
        torch.tensor([b.stride(0) * b.element_size() for b in buffers]),
        target,
        source,
    )
    for buffer, old in zip(buffers, before, strict=True):
        want = old.clone()
        for t, s in zip(target.tolist(), source.tolist(), strict=True):
            want[t] = old[s]
        assert torch.equal(buffer, want)
