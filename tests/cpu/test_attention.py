"""The attention ops against plain loops, over random ragged batches."""

from __future__ import annotations

import random

import pytest
import torch

from sglang_hetero_spec.cpu.attention import decode_attention, extend_attention
from sglang_hetero_spec.cpu.plan import split
from tests.cpu.reference import decode_attention as slow_decode
from tests.cpu.reference import extend_attention as slow_extend
from tests.cpu.reference import random_parents, tree_mask

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
HEADS = [(1, 1), (4, 4), (4, 2), (6, 1)]


class Cache:
    """A paged cache with scattered slots; padding slots hold large values, which must not leak."""

    def __init__(self, rng, lengths, kv_heads, key_size, value_size, dtype, encoder=None, poison=1e4):
        totals = [n + (0 if encoder is None else encoder[i]) for i, n in enumerate(lengths)]
        slots = sum(totals) + 40
        self.k = torch.full((slots, kv_heads, key_size), poison, dtype=dtype)
        self.v = torch.full((slots, kv_heads, value_size), poison, dtype=dtype)
        free = list(range(1, slots))
        rng.shuffle(free)
        requests = len(lengths) + 3
        self.table = torch.randint(0, slots, (requests, max([*totals, 1]) + 5), dtype=torch.int32)
        self.pool = torch.tensor(rng.sample(range(requests), len(lengths)), dtype=torch.int64)
        for i, total in enumerate(totals):
            mine = torch.tensor(free[:total], dtype=torch.int64)
            del free[:total]
            self.table[self.pool[i], :total] = mine.int()
            self.k[mine] = torch.randn(total, kv_heads, key_size).to(dtype)
            self.v[mine] = torch.randn(total, kv_heads, value_size).to(dtype)

    def copy(self):
        other = object.__new__(Cache)
        other.k, other.v, other.table, other.pool = self.k.clone(), self.v.clone(), self.table, self.pool
        return other


def check_decode(
    seed,
    lengths,
    heads=(4, 2),
    sizes=(8, 8),
    dtype=torch.float32,
    window=0,
    cap=0.0,
    sinks=False,
    encoder=None,
    cross=False,
    store=True,
    int_dtype=torch.int64,
):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    cache = Cache(rng, lengths, heads[1], *sizes, dtype, encoder)
    batch = len(lengths)
    query = torch.randn(batch, heads[0], sizes[0]).to(dtype)
    key = torch.randn(batch, heads[1], sizes[0]).to(dtype) if store else None
    value = torch.randn(batch, heads[1], sizes[1]).to(dtype) if store else None
    offsets = encoder or [0] * batch
    last = [max(offsets[i] + n - 1, 0) for i, n in enumerate(lengths)]
    loc = cache.table[cache.pool, torch.tensor(last)].long() if store else None
    sink = torch.randn(heads[0]) if sinks else None
    encoder_lens = None if encoder is None else torch.tensor(encoder)
    seq_lens = torch.tensor(lengths, dtype=int_dtype)
    other = cache.copy()
    got, want = torch.zeros(batch, heads[0], sizes[1], dtype=dtype), torch.zeros(batch, heads[0], sizes[1], dtype=dtype)
    decode_attention(
        query,
        cache.k,
        cache.v,
        1.0,
        1.0,
        got,
        key,
        value,
        loc,
        None,
        cache.table,
        cache.pool,
        seq_lens,
        0.3,
        cap,
        cross,
        window,
        encoder_lens,
        sink,
    )
    slow_decode(
        query,
        other.k,
        other.v,
        want,
        key,
        value,
        loc,
        other.table,
        other.pool,
        seq_lens,
        0.3,
        cap,
        window,
        encoder_lens,
        cross,
        sink,
    )
    assert torch.equal(cache.k, other.k) and torch.equal(cache.v, other.v)
    real = [i for i, n in enumerate(lengths) if (offsets[i] if cross else n) > 0]
    torch.testing.assert_close(got[real], want[real], atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    assert bool(torch.isfinite(got).all())


def ragged(rng, count, top):
    return [rng.choice([1, 2, rng.randint(1, top), rng.randint(1, top)]) for _ in range(count)]


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_decode_heads_and_dtypes(heads, dtype):
    check_decode(1, [5, 1, 17, 9], heads=heads, dtype=dtype)


@pytest.mark.parametrize("seed", range(12))
def test_decode_ragged(seed):
    rng = random.Random(seed)
    check_decode(
        seed,
        ragged(rng, rng.randint(1, 7), 40),
        heads=rng.choice(HEADS),
        sizes=rng.choice([(8, 8), (16, 4), (4, 12)]),
        window=rng.choice([0, 0, 1, 3, 20]),
        cap=rng.choice([0.0, 0.0, 2.0]),
        sinks=rng.random() < 0.3,
        store=rng.random() < 0.8,
        int_dtype=rng.choice([torch.int32, torch.int64]),
    )


@pytest.mark.parametrize("lengths", [[1], [64], [1, 1, 1], [4, 0, 6]])
def test_decode_edges(lengths):
    check_decode(3, lengths, store=0 not in lengths)


def test_decode_splits_very_uneven_batches():
    check_decode(4, [900, 3, 2, 5, 1, 4, 2, 2], sizes=(4, 4))
    areas = [900, 3, 2, 5, 1, 4, 2, 2]
    assert len(split(areas, areas)) == 2


def test_decode_with_encoder_tokens_in_front():
    check_decode(5, [4, 9, 1], encoder=[3, 0, 7])
    check_decode(6, [4, 9, 1], encoder=[3, 2, 7], cross=True, store=False)


def test_decode_of_no_requests():
    empty = torch.zeros(0, 2, 4)
    pool = torch.zeros(0, dtype=torch.int64)
    decode_attention(
        empty,
        torch.zeros(4, 2, 4),
        torch.zeros(4, 2, 4),
        1.0,
        1.0,
        empty,
        None,
        None,
        None,
        None,
        torch.zeros(2, 4, dtype=torch.int32),
        pool,
        pool,
        1.0,
        0.0,
        False,
        0,
        None,
        None,
    )


def check_extend(
    seed,
    prefixes,
    fresh,
    heads=(4, 2),
    sizes=(8, 8),
    dtype=torch.float32,
    window=0,
    cap=0.0,
    sinks=False,
    encoder=None,
    cross=False,
    parents=None,
    causal=True,
    pass_new=True,
    int_dtype=torch.int32,
):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    lengths = [p + n for p, n in zip(prefixes, fresh, strict=True)]
    cache = Cache(rng, lengths, heads[1], *sizes, dtype, encoder)
    offsets = encoder or [0] * len(fresh)
    first = [sum(fresh[:i]) for i in range(len(fresh))]
    total = sum(fresh)
    query = torch.randn(total, heads[0], sizes[0]).to(dtype)
    key = value = None
    if pass_new:
        # The cache's places for the new tokens hold something else: the op must take what it is given.
        key, value = torch.randn(total, heads[1], sizes[0]).to(dtype), torch.randn(total, heads[1], sizes[1]).to(dtype)
        for i, count in enumerate(fresh):
            start = offsets[i] + prefixes[i]
            slots = cache.table[cache.pool[i], start : start + count].long()
            cache.k[slots], cache.v[slots] = 77.0, 77.0
    trees = None if parents is None else torch.stack([tree_mask(p) for p in parents])
    sink = torch.randn(heads[0]) if sinks else None
    encoder_lens = None if encoder is None else torch.tensor(encoder)
    seq_lens = torch.tensor(lengths)
    counts, starts = torch.tensor(fresh, dtype=int_dtype), torch.tensor(first, dtype=int_dtype)
    got = torch.full((total, heads[0], sizes[1]), 55.0, dtype=dtype)
    want = got.clone()
    flat = None if trees is None else torch.cat([trees.reshape(-1), torch.ones(9, dtype=torch.bool)])
    extend_attention(
        query,
        key,
        value,
        got,
        cache.k,
        cache.v,
        1.0,
        1.0,
        cache.table,
        cache.pool,
        seq_lens,
        counts,
        starts,
        max(fresh),
        0.3,
        cap,
        cross,
        window,
        encoder_lens,
        sink,
        flat,
        causal,
    )
    slow_extend(
        query,
        key,
        value,
        want,
        cache.k,
        cache.v,
        cache.table,
        cache.pool,
        seq_lens,
        counts,
        starts,
        0.3,
        cap,
        window,
        encoder_lens,
        cross,
        sink,
        trees,
        causal,
    )
    torch.testing.assert_close(got, want, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_extend_heads_and_dtypes(heads, dtype):
    check_extend(1, [0, 5, 3], [4, 1, 6], heads=heads, dtype=dtype)


@pytest.mark.parametrize("seed", range(16))
def test_extend_ragged(seed):
    rng = random.Random(seed)
    count = rng.randint(1, 6)
    check_extend(
        seed,
        [rng.choice([0, rng.randint(0, 15)]) for _ in range(count)],
        ragged(rng, count, 9),
        heads=rng.choice(HEADS),
        sizes=rng.choice([(8, 8), (16, 4)]),
        window=rng.choice([0, 0, 1, 4]),
        cap=rng.choice([0.0, 0.0, 2.0]),
        sinks=rng.random() < 0.3,
        pass_new=rng.random() < 0.7,
        int_dtype=rng.choice([torch.int32, torch.int64]),
        causal=rng.random() < 0.85,
    )


@pytest.mark.parametrize("seed", range(10))
def test_extend_trees(seed):
    rng = random.Random(seed)
    count, width = rng.randint(1, 5), rng.choice([1, 2, 7])
    check_extend(
        seed,
        [rng.randint(0, 12) for _ in range(count)],
        [width] * count,
        heads=rng.choice(HEADS),
        window=rng.choice([0, 0, 1, 3]),
        cap=rng.choice([0.0, 2.0]),
        parents=[random_parents(rng, width) for _ in range(count)],
    )


def test_tree_window_counts_along_the_path():
    # Two chains from the root, one behind the other in node order: node 4 is at depth 2, not 4.
    check_extend(2, [6], [5], window=3, parents=[[-1, 0, 1, 0, 3]])


@pytest.mark.parametrize(("prefixes", "fresh"), [([0], [1]), ([9], [1]), ([3, 4], [0, 2]), ([0, 0, 0], [2, 0, 2])])
def test_extend_edges(prefixes, fresh):
    check_extend(3, prefixes, fresh)


def test_groups_are_kept_to_what_caches_hold():
    """Below the limit together; above it apart, however alike the requests are, and one alone may be of any length."""
    assert split([1000] * 4, [1000] * 4) == [[0, 1, 2, 3]]
    assert [len(group) for group in split([2000] * 5, [2000] * 5)] == [2, 2, 1]
    assert split([9000], [9000]) == [[0]]
    assert split([6000, 6000], [6000, 6000]) == [[0], [1]]


def test_extend_uneven_batch_is_split():
    check_extend(4, [0, 0, 2, 0, 1], [70, 2, 1, 3, 1], sizes=(4, 4))


def test_extend_cross_attention():
    check_extend(5, [0, 0], [3, 2], encoder=[4, 6], cross=True, pass_new=False)
    check_extend(6, [1, 0], [3, 2], encoder=[4, 0])


def test_long_prefill_is_cut_into_pieces(monkeypatch):
    from sglang_hetero_spec.cpu import attention

    monkeypatch.setattr(attention, "_MAX_SCORES", 64)
    check_extend(7, [3, 0], [21, 13])
    check_extend(8, [3, 0], [21, 13], cap=1.5, window=5)


def test_float8_cache_is_scaled():
    torch.manual_seed(0)
    k, v = torch.randn(6, 1, 4), torch.randn(6, 1, 4)
    low_k, low_v = (k / 2).to(torch.float8_e4m3fn), (v / 4).to(torch.float8_e4m3fn)
    table, pool, lens = torch.tensor([[1, 2, 3, 4]], dtype=torch.int32), torch.tensor([0]), torch.tensor([4])
    query, got, want = torch.randn(1, 2, 4), torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)
    decode_attention(
        query, low_k, low_v, 2.0, 4.0, got, None, None, None, None, table, pool, lens, 0.5, 0.0, False, 0, None, None
    )
    slow_decode(query, low_k.float() * 2, low_v.float() * 4, want, None, None, None, table, pool, lens, 0.5)
    torch.testing.assert_close(got, want)


def test_a_rewritten_tree_mask_is_seen():
    # Same lengths and rows, another tree, as from one step to the next.
    for parents in ([-1, 0, 1, 2], [-1, 0, 0, 0], [-1, 0, 1, 0]):
        check_extend(9, [5], [4], parents=[parents])


def test_a_mask_buffer_written_in_place_is_seen_again():
    """SGLang's n-gram worker keeps one mask tensor and one slot table; both change between steps."""
    torch.manual_seed(0)
    cache = Cache(random.Random(0), [9], 1, 4, 4, torch.float32)
    buffer = torch.zeros(9, dtype=torch.bool)
    query, lens, counts, start = torch.randn(3, 1, 4), torch.tensor([9]), torch.tensor([3]), torch.tensor([0])
    results = []
    for parents in ([-1, 0, 1], [-1, 0, 0]):
        buffer.copy_(tree_mask(parents).reshape(-1))
        for _ in range(2):
            got, want = torch.zeros(3, 1, 4), torch.zeros(3, 1, 4)
            extend_attention(
                query, None, None, got, cache.k, cache.v, 1.0, 1.0, cache.table, cache.pool, lens, counts, start, 3,
                0.3, 0.0, False, 0, None, None, buffer, True,
            )  # fmt: skip
            trees = tree_mask(parents)[None]
            slow_extend(
                query, None, None, want, cache.k, cache.v, cache.table, cache.pool, lens, counts, start, 0.3, tree=trees
            )
            torch.testing.assert_close(got, want)
            results.append(got)
            cache.table[cache.pool[0], :2] = cache.table[cache.pool[0], :2].flip(0)
            cache.table[cache.pool[0], 0] = cache.table[cache.pool[0], 3]
    assert not torch.allclose(results[0], results[1]) and not torch.allclose(results[1], results[2])


def test_strided_queries_and_outputs():
    """SGLang hands over slices of one projection: rows are not next to each other."""
    torch.manual_seed(0)
    cache = Cache(random.Random(0), [5, 8], 2, 4, 4, torch.float32)
    other = cache.copy()
    qkv = torch.randn(2, 4 * 4 + 2 * 4 + 2 * 4)
    query, key, value = (part.view(2, -1, 4) for part in qkv.split([16, 8, 8], dim=-1))
    lens = torch.tensor([5, 8])
    loc = cache.table[cache.pool, lens - 1].long()
    got, want = torch.zeros(2, 4, 4), torch.zeros(2, 4, 4)
    decode_attention(
        query, cache.k, cache.v, 1.0, 1.0, got, key, value, loc, None, cache.table, cache.pool, lens, 0.3,
        0.0, False, 0, None, None,
    )  # fmt: skip
    slow_decode(query, other.k, other.v, want, key, value, loc, other.table, other.pool, lens, 0.3)
    torch.testing.assert_close(got, want)
