"""Draft trees: built from beam selections, read from masks, walked greedily; the loop takes one at a time."""

from __future__ import annotations

import random

import torch

from benchmarks.cpu_ops.case import Case, Forms, lengths_of
from sglang_hetero_spec.cpu import tree
from tests.cpu import reference

TOPK, DEPTH, NODES, VOCAB = 4, 4, 16, 8


def _selections(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What a beam search hands over: parent cells [b, TOPK * (DEPTH - 1) + 1] and chosen cells [b, NODES - 1]."""
    draw = random.Random(0)
    parents, chosen = [], []
    for _ in range(size):
        row = [-1, *range(TOPK)]
        for step in range(1, DEPTH - 1):
            first = TOPK + (step - 1) * TOPK * TOPK
            row += sorted(first + cell for cell in draw.sample(range(TOPK * TOPK), TOPK))
        cells = set(range(TOPK))
        while len(cells) < NODES - 1:
            cell = draw.randrange(TOPK, TOPK + (DEPTH - 1) * TOPK * TOPK)
            if row[cell // TOPK] in cells:
                cells.add(cell)
        parents.append(row)
        chosen.append(sorted(cells))
    return torch.tensor(parents), torch.tensor(chosen)


def _build(size: int, length: int, full: bool) -> Forms:
    parent_list, selected = _selections(size)
    lengths = lengths_of(size, length)
    entries = size * NODES * NODES + (int(lengths.sum()) * NODES if full else 0)
    mode = 0 if full else 1

    def outputs() -> list[torch.Tensor]:
        links = [torch.full((size, NODES), -1) for _ in range(3)]
        return [torch.ones(entries, dtype=torch.bool), torch.zeros(size * NODES, dtype=torch.int64), *links]

    mine, theirs = outputs(), outputs()

    def ours() -> list[torch.Tensor]:
        tree.build_tree_kernel_efficient(parent_list, selected, lengths, *mine, TOPK, DEPTH, NODES, mode)
        return mine

    def loop() -> list[torch.Tensor]:
        mask, positions, numbers, child, sibling = theirs
        done = 0
        for i in range(size):
            before = int(lengths[i])
            parents = _parents_of(parent_list[i].tolist(), selected[i].tolist())
            rows, depths = _seen(parents)
            prefix = before if full else 0
            part = mask[done : done + NODES * (prefix + NODES)].view(NODES, prefix + NODES)
            part[:, prefix:] = torch.tensor(rows)
            done += part.numel()
            positions[i * NODES : (i + 1) * NODES] = torch.tensor(depths) + before
            numbers[i] = torch.arange(i * NODES, (i + 1) * NODES)
            first, following = reference.links(parents)
            child[i], sibling[i] = torch.tensor(first), torch.tensor(following)
        return theirs

    return Forms(ours, loop)


def _parents_of(cells: list[int], chosen: list[int]) -> list[int]:
    """Parent node of each node, -1 of the root."""
    node = {cell: number for number, cell in enumerate(chosen, start=1)}
    return [-1, *(0 if cell < TOPK else node[cells[cell // TOPK]] for cell in chosen)]


def _seen(parents: list[int]) -> tuple[list[list[bool]], list[int]]:
    rows, depths = [], []
    for number in range(len(parents)):
        path = set(reference.path_to_root(parents, number))
        rows.append([other in path for other in range(len(parents))])
        depths.append(len(path) - 1)
    return rows, depths


def build(size: int, length: int) -> Forms:
    """`build_tree_kernel_efficient` where the backend wants the trees' mask alone (our CPU attention)."""
    return _build(size, length, full=False)


def build_full(size: int, length: int) -> Forms:
    """`build_tree_kernel_efficient` with every prefix in front of each row of the mask."""
    return _build(size, length, full=True)


def from_masks(size: int, length: int) -> Forms:
    """`reconstruct_indices_from_tree_mask`: SGLang's n-gram drafts come as masks."""
    draw = random.Random(0)
    trees = [reference.random_parents(draw, NODES) for _ in range(size)]
    mask = torch.stack([reference.tree_mask(parents) for parents in trees])
    lengths = lengths_of(size, length)
    mine, theirs = ([torch.zeros(size * NODES, dtype=torch.int64)] for _ in range(2))
    for outputs in (mine, theirs):
        outputs += [torch.full((size, NODES), -1) for _ in range(3)]

    def ours() -> list[torch.Tensor]:
        tree.reconstruct_indices_from_tree_mask(mask.view(-1), lengths, *mine, size, NODES)
        return mine

    def loop() -> list[torch.Tensor]:
        positions, numbers, child, sibling = theirs
        for i in range(size):
            rows = mask[i].tolist()
            parents = [max((other for other in range(n) if rows[n][other]), default=-1) for n in range(NODES)]
            positions[i * NODES : (i + 1) * NODES] = torch.tensor([sum(row) - 1 for row in rows]) + lengths[i]
            numbers[i] = torch.arange(i * NODES, (i + 1) * NODES)
            first, following = reference.links(parents)
            child[i], sibling[i] = torch.tensor(first), torch.tensor(following)
        return theirs

    return Forms(ours, loop)


def verify(size: int, length: int) -> Forms:
    """`verify_tree_greedy`: the path that the target's choices follow. The loop reads and writes request by request."""
    draw = random.Random(0)
    trees = [reference.random_parents(draw, NODES) for _ in range(size)]
    links = [reference.links(parents) for parents in trees]
    child, sibling = (torch.tensor([pair[which] for pair in links]) for which in (0, 1))
    torch.manual_seed(0)
    tokens, choice = torch.randint(0, VOCAB, (2, size, NODES)).unbind()
    numbers = torch.arange(size * NODES).view(size, NODES)

    def outputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        shapes = ((size * NODES,), (size, DEPTH + 1), (size,))
        predicts, path, count = (torch.zeros(shape, dtype=torch.int32) for shape in shapes)
        return predicts, path.fill_(-1), count

    mine, theirs, plain = outputs(), outputs(), outputs()

    def ours() -> object:
        tree.verify_tree_greedy(*mine, tokens, numbers, child, sibling, choice)
        return mine

    def loop() -> object:
        predicts, path, count = theirs
        for i in range(size):
            mine, want = tokens[i].tolist(), choice[i].tolist()
            first, following = child[i].tolist(), sibling[i].tolist()
            node, nodes = 0, [0]
            while len(nodes) <= DEPTH:
                nxt = first[node]
                while nxt != -1 and mine[nxt] != want[node]:
                    nxt = following[nxt]
                if nxt == -1:
                    break
                node = nxt
                nodes.append(node)
            places = torch.tensor(nodes)
            predicts[i * NODES + places] = choice[i, places].int()
            path[i, : len(nodes)] = (i * NODES + places).int()
            count[i] = len(nodes) - 1
        return theirs

    def by_reference() -> object:
        predicts, path, count = plain
        for i, parents in enumerate(trees):
            nodes = reference.greedy_walk(parents, tokens[i].tolist(), choice[i].tolist(), DEPTH + 1)
            for place, node in enumerate(nodes):
                predicts[i * NODES + node] = choice[i, node]
                path[i, place] = i * NODES + node
            count[i] = len(nodes) - 1
        return plain

    return Forms(ours, loop, by_reference)


CASES = (
    Case("build trees", build),
    Case("build trees, full mask", build_full, by_length=True),
    Case("trees from masks", from_masks),
    Case("greedy verification", verify),
)
