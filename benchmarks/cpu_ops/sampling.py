"""Sampled verification and its filters; the loop takes one request at a time through the same PyTorch functions."""

from __future__ import annotations

import random

import torch

from benchmarks.cpu_ops.case import Case, Forms
from sglang_hetero_spec.cpu import sampling, seeded
from tests.cpu import reference

NODES, PLACES, VOCAB = 8, 5, 1024


def _probs(*shape: int) -> torch.Tensor:
    torch.manual_seed(0)
    return (torch.randn(*shape, VOCAB) * 3).softmax(-1)


def filters(size: int, length: int) -> Forms:
    """`filter_probs`: top-k, top-p and min-p over the NODES rows of each request's tree."""
    probs = _probs(size * NODES)
    top_ks = torch.randint(5, 60, (size,)).repeat_interleave(NODES)
    top_ps = (torch.rand(size) * 0.5 + 0.5).repeat_interleave(NODES)
    min_ps = (torch.rand(size) * 0.05).repeat_interleave(NODES)

    def ours() -> torch.Tensor:
        return sampling.filter_probs(probs, top_ks, top_ps, min_ps, 64)

    def loop() -> torch.Tensor:
        parts = []
        for i in range(size):
            row = i * NODES
            weights, tokens = probs[row : row + NODES].topk(64, dim=-1)
            before = weights.cumsum(-1) - weights
            kept = (torch.arange(64) < top_ks[row]) & (before <= top_ps[row])
            kept &= weights >= weights[:, :1] * min_ps[row]
            weights = weights * kept
            weights = weights / weights.sum(-1, keepdim=True)
            parts.append(torch.zeros(NODES, VOCAB).scatter_(1, tokens, weights))
        return torch.cat(parts)

    return Forms(ours, loop)


def walk(size: int, length: int) -> Forms:
    """`tree_speculative_sampling_target_only`: a sampled path down each tree, and the token behind it."""
    draw = random.Random(0)
    trees = [reference.random_parents(draw, NODES) for _ in range(size)]
    links = [reference.links(parents) for parents in trees]
    child, sibling = (torch.tensor([pair[which] for pair in links]) for which in (0, 1))
    probs = _probs(size, NODES)
    # Likely tokens, so that paths are as long as in use; siblings are distinct.
    tokens = probs.topk(NODES, dim=-1).indices[:, 0].contiguous()
    coins, final = torch.rand(size, NODES), torch.rand(size)
    numbers = torch.arange(size * NODES).view(size, NODES)

    # Takes the mass of rejected children, the same in every call.
    rejected = torch.zeros_like(probs)

    def ours() -> tuple[torch.Tensor, ...]:
        outputs = _outputs(size)
        sampling.tree_speculative_sampling_target_only(
            *outputs, tokens, numbers, child, sibling, coins, final, probs, rejected
        )
        return outputs

    def loop() -> tuple[torch.Tensor, ...]:
        predicts, path, count = outputs = _outputs(size)
        for i in range(size):
            left = torch.zeros(VOCAB)
            node, nodes = 0, [0]
            names, first, following = tokens[i].tolist(), child[i].tolist(), sibling[i].tolist()
            while len(nodes) < PLACES:
                coin, share, nxt = float(coins[i, node]), 0.0, first[node]
                left.zero_()
                while nxt != -1:
                    weight = float(probs[i, node, names[nxt]])
                    share += weight
                    if coin < share:
                        break
                    left[names[nxt]] = weight
                    nxt = following[nxt]
                if nxt == -1:
                    break
                predicts[i * NODES + node] = names[nxt]
                node = nxt
                nodes.append(node)
            path[i, : len(nodes)] = torch.tensor(nodes) + i * NODES
            count[i] = len(nodes) - 1
            rest = probs[i, node].double()
            if len(nodes) < PLACES:
                rest = (rest - left).clamp(min=0)
            cumulative = rest.cumsum(0)
            predicts[i * NODES + node] = torch.searchsorted(cumulative, final[i].double() * cumulative[-1], right=True)
        return outputs

    return Forms(ours, loop)


def _outputs(size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """predicts, accept_index, accept_token_num."""
    return (
        torch.zeros(size * NODES, dtype=torch.int32),
        torch.full((size, PLACES), -1, dtype=torch.int32),
        torch.zeros(size, dtype=torch.int32),
    )


def seeded_hash(size: int, length: int) -> Forms:
    """`murmur_hash32`: one coin per request and node, for requests with a seed."""
    torch.manual_seed(0)
    seeds = torch.randint(0, 1 << 40, (size,))
    positions = torch.randint(0, 4096, (size,))
    columns = torch.arange(NODES + 1)

    def ours() -> torch.Tensor:
        return seeded.murmur_hash32(seeds, positions, columns)

    def loop() -> torch.Tensor:
        rows = []
        for i in range(size):
            seed, position = int(seeds[i]), int(positions[i])
            blocks = [seed & 0xFFFFFFFF, seed >> 32, position]
            rows.append([reference.murmur3([*blocks, column]) for column in range(NODES + 1)])
        return torch.tensor(rows, dtype=torch.uint32)

    return Forms(ours, loop)


CASES = (
    Case("sampling filters", filters),
    Case("sampled verification", walk),
    Case("seeded coins", seeded_hash),
)
