"""Sampling for speculative verification on CPU: probability filters and target-only tree sampling.

SGLang's CPU build has neither, and verifies greedily whatever the temperature. Plain functions, no SGLang imports.
"""

from __future__ import annotations

import functools

import numpy as np
import torch


def filter_probs(
    probs: torch.Tensor,
    top_ks: torch.Tensor | None,
    top_ps: torch.Tensor | None,
    min_ps: torch.Tensor | None,
    max_top_k: int | None = None,
) -> torch.Tensor:
    """The distribution that SGLang's PyTorch sampler draws from: top-k, top-p and min-p together, renormalised.

    probs: float [n, V], not changed. top_ks: int [n], at least 1; top_ps, min_ps: float [n]; None leaves a filter out.
    max_top_k: any bound on top_ks, saves a full sort. Returns float32 [n, V].

    top-p measures mass in the unfiltered distribution, not in what top-k left: filtering with `top_k_renorm_probs`
    and then with `top_p_renorm_probs` gives another distribution. Ties are cut by the same sort as SGLang's.
    """
    probs = probs.float()
    if top_ks is None and top_ps is None and min_ps is None:
        return probs
    bound = probs.shape[-1] if max_top_k is None or top_ks is None else min(max_top_k, probs.shape[-1])
    if bound < probs.shape[-1]:
        weights, tokens = torch.topk(probs, k=bound, dim=-1, sorted=True)
    else:
        weights, tokens = probs.sort(dim=-1, descending=True)
    before = torch.cumsum(weights, dim=-1) - weights
    dropped = []
    if top_ks is not None:
        dropped.append(torch.arange(bound, device=probs.device) >= top_ks.view(-1, 1))
    if top_ps is not None:
        dropped.append(before > top_ps.view(-1, 1))
    if min_ps is not None:
        dropped.append(weights < weights[:, :1] * min_ps.view(-1, 1))
    weights = weights.masked_fill(functools.reduce(torch.logical_or, dropped), 0.0)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return torch.zeros_like(probs).scatter_(-1, tokens, weights)


def top_k_renorm_probs(probs: torch.Tensor, ks: torch.Tensor) -> torch.Tensor:
    """Keep the ks[i] most likely tokens of row i. probs: float [n, V]; ks: int [n]; returns float32 [n, V]."""
    return filter_probs(probs, ks, None, None)


def top_p_renorm_probs(probs: torch.Tensor, ps: torch.Tensor) -> torch.Tensor:
    """Keep the fewest likeliest tokens whose mass exceeds ps[i]. ps: float [n]; returns float32 [n, V]."""
    return filter_probs(probs, None, ps, None)


def min_p_renorm_probs(probs: torch.Tensor, min_ps: torch.Tensor) -> torch.Tensor:
    """Keep tokens at least min_ps[i] times as likely as the likeliest. min_ps: float [n]; returns float32 [n, V]."""
    return filter_probs(probs, None, None, min_ps)


def tree_speculative_sampling_target_only(
    predicts: torch.Tensor,
    accept_index: torch.Tensor,
    accept_token_num: torch.Tensor,
    candidates: torch.Tensor,
    retrive_index: torch.Tensor,
    retrive_next_token: torch.Tensor,
    retrive_next_sibling: torch.Tensor,
    uniform_samples: torch.Tensor,
    uniform_samples_for_final_sampling: torch.Tensor,
    target_probs: torch.Tensor,
    draft_probs: torch.Tensor,
    threshold_single: float = 1.0,
    threshold_acc: float = 1.0,
    deterministic: bool = True,
) -> None:
    """Sample a path through each draft tree so that the emitted tokens follow the target's distribution exactly.

    At every node one coin decides among its children: child c is taken where the coin falls into c's share of the
    target's mass. If it falls behind all children, the walk ends and the next token is drawn from what they left over.
    Exact while siblings are distinct and both thresholds are 1.

    b requests, D nodes, S places (deepest path + 1), V tokens. candidates, retrive_*: int [b, D] (links within a
    tree, -1 for none; retrive_index: running node numbers). uniform_samples: float32 [b, D], the coin of each node;
    uniform_samples_for_final_sampling: float32 [b]. target_probs: float32 [b, D, V], what follows each node.
    draft_probs: float32 [b, D, V], zeros; takes the mass of rejected children. Outputs as in `verify_tree_greedy`:
    predicts int32 [b * D], accept_index int32 [b, S], accept_token_num int32 [b]. `deterministic` is always so here.
    """
    batch = candidates.shape[0]
    if batch == 0:
        return
    # Lists and single elements: a walk visits few nodes, and arrays over all requests cost more than all walks.
    tokens, flat = candidates.tolist(), retrive_index.tolist()
    child, sibling = retrive_next_token.tolist(), retrive_next_sibling.tolist()
    coins, mass, taken = uniform_samples.tolist(), target_probs.numpy(), draft_probs.numpy()
    path, predictions = accept_index.numpy(), predicts.numpy()
    nodes, counts = [], []
    for row in range(batch):
        node = count = 0
        path[row, 0] = flat[row][0]
        while count + 1 < path.shape[1]:
            coin, share, option = coins[row][node], 0.0, child[row][node]
            while option != -1:
                token = tokens[row][option]
                weight = mass.item(row, node, token)
                share += weight
                if weight > 0 and (coin < share / threshold_acc or weight >= threshold_single):
                    break
                taken[row, node, token] = weight
                option = sibling[row][option]
            if option == -1:
                break
            predictions[flat[row][node]] = token
            count += 1
            path[row, count] = flat[row][option]
            node = option
        nodes.append(node)
        counts.append(count)
    accept_token_num.numpy()[:] = counts

    final_coins = uniform_samples_for_final_sampling.tolist()
    for row, (node, count) in enumerate(zip(nodes, counts, strict=True)):
        rest = mass[row, node].astype(np.float64)
        # A full path ends where no child was ever rejected: there the target's own row is used as it is.
        if count != path.shape[1] - 1:
            rest -= taken[row, node]
            np.maximum(rest, 0, out=rest)
        predictions[flat[row][node]] = _draw_one(rest, mass[row, node], final_coins[row])


def _draw_one(weights: np.ndarray, fallback: np.ndarray, coin: float) -> int:
    """`draw` for one row, float64 [V]: there the calls cost more than the work."""
    cumulative = weights.cumsum()
    total = cumulative[-1]
    if not total > 0:
        return int(fallback.argmax())
    index = int(cumulative.searchsorted(coin * total, side="right"))
    return index if index < len(weights) else int(weights.nonzero()[0][-1])


def draw(weights: torch.Tensor, fallback: torch.Tensor, coins: torch.Tensor) -> torch.Tensor:
    """One token per row in proportion to weights (float64 [n, V], any scale). coins: [n] in [0, 1). int64 [n].

    Where nothing is left (all mass on rejected children, a coin within rounding of it) the likeliest token is taken.
    """
    cumulative = weights.cumsum(-1)
    total = cumulative[:, -1:]
    # The first token whose cumulative mass exceeds the coin has mass itself; rounding may point behind the last one.
    index = torch.searchsorted(cumulative, coins.double()[:, None] * total, right=True)
    width = weights.shape[-1]
    last_alive = width - 1 - (weights > 0).flip(-1).int().argmax(-1, keepdim=True)
    index = torch.minimum(index, last_alive)
    return torch.where(total > 0, index, fallback.argmax(-1, keepdim=True)).squeeze(1)
