"""Tree building, mask reading and greedy verification against plain loops."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_hetero_spec.cpu import tree
from tests.cpu.reference import greedy_walk, links, path_to_root, random_parents, tree_mask


def beam(rng, topk, depth, nodes):
    """A random beam search as SGLang records it: parents per beam cell, selected cells, and the tree they make.

    Cell c of level 0 is child c of the root; level l > 0 has topk * topk cells, children of the topk beams kept.
    Returns (parent_list, selected cells, parents of the selected nodes).
    """
    cells = topk + (depth - 1) * topk * topk
    parent_of = {c: -1 for c in range(topk)}
    parent_list, beams, start = [-1], list(range(topk)), topk
    for _ in range(1, depth):
        parent_list += beams
        for b, cell in enumerate(beams):
            for k in range(topk):
                parent_of[start + b * topk + k] = cell
        level_cells = list(range(start, start + topk * topk))
        beams = sorted(rng.sample(level_cells, topk))
        start += topk * topk
    chosen: set[int] = set()
    while len(chosen) < min(nodes, cells):
        open_cells = [c for c, p in parent_of.items() if c not in chosen and (p == -1 or p in chosen)]
        chosen.add(rng.choice(open_cells))
    selected = sorted(chosen)
    number = {cell: i + 1 for i, cell in enumerate(selected)}
    return parent_list, selected, [-1, *[0 if parent_of[c] == -1 else number[parent_of[c]] for c in selected]]


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4), st.integers(1, 9), st.booleans())
@settings(max_examples=60, deadline=None)
def test_build_tree(seed, topk, depth, nodes, full):
    rng = random.Random(seed)
    nodes = min(nodes, topk + (depth - 1) * topk * topk)
    trees = [beam(rng, topk, depth, nodes) for _ in range(rng.randint(1, 4))]
    width = nodes + 1
    batch, lens = len(trees), [rng.randint(0, 9) for _ in trees]
    # SGLang hands over an empty parent list when there is one level.
    parent_list = torch.tensor([t[0] if depth > 1 else [] for t in trees], dtype=torch.int64).view(batch, -1)
    size = batch * width * width + (sum(lens) * width if full else 0)
    mask = torch.ones(size, dtype=torch.bool)
    positions = torch.zeros(batch * width, dtype=torch.int64)
    index, child, sibling = torch.full((3, batch, width), -1, dtype=torch.int64)
    tree.build_tree_kernel_efficient(
        parent_list,
        torch.tensor([t[1] for t in trees]),
        torch.tensor(lens),
        mask,
        positions,
        index,
        child,
        sibling,
        topk,
        depth,
        width,
        0 if full else 1,
    )
    start = 0
    for i, (_, _, parents) in enumerate(trees):
        depths = [len(path_to_root(parents, n)) - 1 for n in range(width)]
        assert positions.view(batch, width)[i].tolist() == [lens[i] + d for d in depths]
        assert index[i].tolist() == list(range(i * width, (i + 1) * width))
        assert (child[i].tolist(), sibling[i].tolist()) == tuple(links(parents))
        columns = width + (lens[i] if full else 0)
        block = mask[start : start + width * columns].view(width, columns)
        start += width * columns
        assert torch.equal(block[:, columns - width :], tree_mask(parents))
        assert bool(block[:, : columns - width].all())


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_reconstruct_from_mask(seed, width, batch):
    rng = random.Random(seed)
    trees = [random_parents(rng, width) for _ in range(batch)]
    lens = torch.tensor([rng.randint(0, 9) for _ in trees])
    flat = torch.cat([tree_mask(p).reshape(-1) for p in trees] + [torch.ones(5, dtype=torch.bool)])
    positions = torch.zeros(batch * width, dtype=torch.int64)
    index, child, sibling = torch.zeros((3, batch, width), dtype=torch.int64)
    tree.reconstruct_indices_from_tree_mask(flat, lens, positions, index, child, sibling, batch, width)
    for i, parents in enumerate(trees):
        depths = [len(path_to_root(parents, n)) - 1 for n in range(width)]
        assert positions.view(batch, width)[i].tolist() == [int(lens[i]) + d for d in depths]
        assert (child[i].tolist(), sibling[i].tolist()) == tuple(links(parents))
    assert index.reshape(-1).tolist() == list(range(batch * width))


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 4), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_verify_greedy(seed, width, batch, places):
    rng = random.Random(seed)
    trees = [random_parents(rng, width) for _ in range(batch)]
    tokens = [[rng.randrange(3) for _ in range(width)] for _ in trees]
    choice = [[rng.randrange(3) for _ in range(width)] for _ in trees]
    child, sibling = (torch.tensor([links(p)[k] for p in trees]) for k in (0, 1))
    index = torch.arange(batch * width).view(batch, width)
    predicts = torch.full((batch * width,), -9, dtype=torch.int32)
    accept = torch.full((batch, places), -1, dtype=torch.int32)
    counts = torch.zeros(batch, dtype=torch.int32)
    tree.verify_tree_greedy(
        predicts=predicts,
        accept_index=accept,
        accept_token_num=counts,
        candidates=torch.tensor(tokens),
        retrive_index=index,
        retrive_next_token=child,
        retrive_next_sibling=sibling,
        target_predict=torch.tensor(choice),
    )
    for i, parents in enumerate(trees):
        path = greedy_walk(parents, tokens[i], choice[i], places)
        assert int(counts[i]) == len(path) - 1
        assert accept[i].tolist() == [i * width + n for n in path] + [-1] * (places - len(path))
        for node in path:
            assert int(predicts[i * width + node]) == choice[i][node]


def test_bit_packed_masks_are_refused():
    ones = torch.zeros(1, 2, dtype=torch.int64)
    with pytest.raises(NotImplementedError):
        tree.build_tree_kernel_efficient(
            torch.zeros(1, 0, dtype=torch.int64),
            torch.zeros(1, 1, dtype=torch.int64),
            torch.zeros(1),
            torch.zeros(2),
            torch.zeros(2),
            ones,
            ones.clone(),
            ones.clone(),
            1,
            1,
            2,
            2,
        )
