"""Attention in two parts, from the very arrays that FlashInfer gets, against attention with the whole mask.

Runs under TRITON_INTERPRET=1 (tests/cuda/test_kernels.py starts it).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sglang_hetero_spec.cuda.plan_arrays import Trees, fill
from sglang_hetero_spec.cuda.tree_plan import mask_bytes, plan_tree, tree_indices
from sglang_hetero_spec.drafters.tree import lay_out
from tests.cuda.two_parts import Heads, attend, in_two_parts
from tests.drafters import reference


@dataclass(frozen=True)
class World:
    """A batch in a KV pool: pages of a request lie anywhere, tokens of a page in order."""

    trees: Trees
    depths: torch.Tensor
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    heads: Heads

    @property
    def width(self) -> int:
        return self.depths.shape[1]


def world(rng: random.Random, lens: list[int], width: int, page_size: int, heads: Heads, dtype: torch.dtype) -> World:
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    pages_per_row = -(-(max(lens) + width) // page_size) + 1
    num_rows = len(lens) + 2
    pages = torch.randperm(num_rows * pages_per_row, generator=generator).view(num_rows, pages_per_row)
    table = (pages.unsqueeze(2) * page_size + torch.arange(page_size)).flatten(1).to(torch.int32)
    rows = torch.tensor(rng.sample(range(num_rows), len(lens)))
    parents = [reference.random_tree(rng, width, padding=rng.choice([0.0, 0.2])) for _ in lens]
    layout = lay_out(torch.tensor(parents))
    seq_lens = torch.tensor(lens)
    num_slots = num_rows * pages_per_row * page_size
    made = [
        torch.randn(count, number, heads.dim, generator=generator, dtype=torch.float64).to(dtype)
        for count, number in ((len(lens) * width, heads.query), (num_slots, heads.key), (num_slots, heads.key))
    ]
    trees = Trees(
        table=table,
        rows=rows,
        seq_lens=seq_lens,
        positions=(layout.positions + seq_lens.unsqueeze(1)).flatten(),
        mask=torch.cat((layout.ancestors.flatten(), torch.ones(9, dtype=torch.bool))),
    )
    return World(trees, layout.positions, *made, heads)


def with_the_whole_mask(at: World, window_left: int) -> torch.Tensor:
    """The definition: a node sees the prefix, its ancestors and itself, as far as its window goes back."""
    outputs = []
    for request, length in enumerate(at.trees.seq_lens.tolist()):
        slots = at.trees.table[at.trees.rows[request], : length + at.width].long()
        mask = at.trees.mask[: at.depths.numel() * at.width].view(-1, at.width, at.width)[request]
        seen = torch.cat((torch.ones(at.width, length, dtype=torch.bool), mask), dim=1)
        depths = at.depths[request]
        where = torch.cat((torch.arange(length), length + depths))
        if window_left >= 0:
            seen = seen & ((length + depths).unsqueeze(1) - where <= window_left)
        rows = slice(request * at.width, (request + 1) * at.width)
        outputs.append(attend(at.q[rows], at.k[slots], at.v[slots], seen, at.heads)[0])
    return torch.cat(outputs)


def difference(at: World, page_size: int, window_left: int, spare_depth: int = 0) -> float:
    depth = int(at.depths.max()) + spare_depth
    plan = plan_tree(at.trees.seq_lens, at.width, depth, page_size, window_left)
    arrays = fill(plan, at.trees)
    size = (len(at.trees.seq_lens), at.width, depth, page_size, window_left)
    assert arrays.packed.numel() <= mask_bytes(*size) and arrays.slots.numel() <= tree_indices(*size)
    got = in_two_parts(at.q, at.k, at.v, plan, arrays, at.heads)
    return float((got - with_the_whole_mask(at, window_left)).abs().max())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    lens=st.lists(st.sampled_from([0, 1, 2, 15, 16, 17, 31, 48, 77]), min_size=1, max_size=4),
    width=st.integers(1, 12),
    page_size=st.sampled_from([1, 16]),
    window_left=st.sampled_from([-1, -1, 0, 1, 5, 16, 40, 1000]),
    share=st.sampled_from([1, 4]),
    spare_depth=st.sampled_from([0, 3]),
)
@example(seed=1, lens=[0], width=1, page_size=16, window_left=-1, share=1, spare_depth=0)
@example(seed=2, lens=[300, 0, 5], width=64, page_size=16, window_left=-1, share=4, spare_depth=0)
@example(seed=3, lens=[300, 129], width=33, page_size=16, window_left=128, share=2, spare_depth=0)
@example(seed=4, lens=[90], width=9, page_size=1, window_left=3, share=1, spare_depth=0)
def test_two_parts_are_the_whole(
    seed: int, lens: list[int], width: int, page_size: int, window_left: int, share: int, spare_depth: int
) -> None:
    heads = Heads(query=2 * share, key=2, dim=8)
    at = world(random.Random(seed), lens, width, page_size, heads, torch.float64)
    assert difference(at, page_size, window_left, spare_depth) < 1e-12


def test_in_single_precision_too() -> None:
    at = world(random.Random(5), [0, 33, 700], 16, 16, Heads(8, 2, 64), torch.float32)
    assert difference(at, 16, -1) < 1e-6
    assert difference(at, 16, 256) < 1e-6


@pytest.mark.parametrize("wrong", ["mask", "slots", "pages"])
def test_a_wrong_array_is_seen(wrong: str) -> None:
    at = world(random.Random(6), [40, 17], 8, 16, Heads(2, 2, 8), torch.float64)
    plan = plan_tree(at.trees.seq_lens, at.width, 7, 16)
    arrays = fill(plan, at.trees)
    if wrong == "mask":
        arrays.packed[0] ^= 1
    elif wrong == "slots":
        arrays.slots[0] = arrays.slots[1]
    else:
        arrays.pages[1] = arrays.pages[0]
    got = in_two_parts(at.q, at.k, at.v, plan, arrays, at.heads)
    assert float((got - with_the_whole_mask(at, -1)).abs().max()) > 1e-3
