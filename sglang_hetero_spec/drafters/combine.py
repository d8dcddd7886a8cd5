"""Two drafters' trees for one request, in one: equal prefixes once, cut to a width by score.

A node's score is the log-probability of the path to it, as its drafter sees it; of a node that both propose, the
higher one. A child's score is never above its parent's, so the best nodes of a stable order are a tree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sglang_hetero_spec.cuda.transfer import kept_on_device
from sglang_hetero_spec.drafters.tree import NO_NODE, DraftTree, ancestors_of

# Of a draft whose drafter gives no scores: that it is right as often as it is for a usual drafter.
_LOG_RATE = math.log(0.7)


def combine(first: DraftTree, second: DraftTree, width: int) -> DraftTree:
    """Both for the same b requests. The root counts in `width`; nodes behind a tree's own are padding.

    num_fed is 1: a drafter has read its own drafts at places that are not theirs any more.
    """
    return _best(_union(first, second), width, max(first.depth, second.depth))


@dataclass(frozen=True)
class _Union:
    """tokens, parents: [b, n]; scores: [b, n], -inf where there is no node (padding, or a node that is another's)."""

    tokens: torch.Tensor
    parents: torch.Tensor
    scores: torch.Tensor


def _union(first: DraftTree, second: DraftTree) -> _Union:
    """The nodes of `first`, and behind them those of `second` but its root."""
    scores, others = _scores(first), _scores(second)
    same = _same_paths(first, second, scores, others)
    is_known, known = same.max(dim=1)
    mine = kept_on_device(range(first.width - 1, first.width + second.width - 1), same.device)
    place = torch.where(is_known, known, mine)  # of each node of `second`
    has_parent = ~is_known & (others > -torch.inf)
    parents = torch.where(has_parent, place.gather(1, second.parents.clamp(min=0)), NO_NODE)
    better = torch.where(same, others.unsqueeze(1), -torch.inf).amax(dim=2)
    return _Union(
        tokens=torch.cat((first.tokens, second.tokens[:, 1:]), dim=1),
        parents=torch.cat((first.parents, parents[:, 1:]), dim=1),
        scores=torch.cat((torch.maximum(scores, better), others.masked_fill(is_known, -torch.inf)[:, 1:]), dim=1),
    )


def _same_paths(first: DraftTree, second: DraftTree, scores: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Which node of `first` has the path of which node of `second`, bool [b, n, m]. Scores are -inf for padding."""
    device = scores.device
    both_roots = [(not one) == (not other) for one in range(first.width) for other in range(second.width)]
    same = first.tokens.unsqueeze(2) == second.tokens.unsqueeze(1)
    same &= kept_on_device(both_roots, device, torch.bool).view(first.width, second.width)
    same &= (scores > -torch.inf).unsqueeze(2) & (others > -torch.inf).unsqueeze(1)
    above = first.parents.clamp(min=0).unsqueeze(2).expand_as(same)
    others_above = second.parents.clamp(min=0).unsqueeze(1).expand_as(same)
    # Level by level: what is above them is the same, too. The root counts as its own parent.
    for _ in range(min(first.depth, second.depth)):
        same = same & same.gather(1, above).gather(2, others_above)
    return same


def _best(union: _Union, width: int, depth: int) -> DraftTree:
    scores = union.scores.clone()
    scores[:, 0] = torch.inf  # the root comes first
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :width]
    chosen = order.sort(dim=1).values
    kept = union.scores.gather(1, chosen)
    parents = union.parents.gather(1, chosen)
    matches = (parents.unsqueeze(2) == chosen.unsqueeze(1)) & (parents != NO_NODE).unsqueeze(2)
    is_node = kept > -torch.inf
    hangs = matches.any(dim=2) & is_node
    return DraftTree(
        tokens=torch.where(is_node, union.tokens.gather(1, chosen), union.tokens[:, :1]),
        parents=torch.where(hangs, matches.int().argmax(dim=2), NO_NODE),
        depth=depth,
        num_fed=1,
        scores=kept,
        counts=is_node.sum(dim=1) - 1,
    )


def _scores(tree: DraftTree) -> torch.Tensor:
    """float32 [b, n], never above the parent's; -inf for padding."""
    if tree.scores is None and tree.is_chain:
        scores = (kept_on_device(range(tree.width), tree.tokens.device) * _LOG_RATE).expand(tree.tokens.shape)
    elif tree.scores is None:
        scores = ancestors_of(tree.parents)[1] * _LOG_RATE
    else:
        scores, above = tree.scores.float(), tree.parents.clamp(min=0)
        for _ in range(tree.depth):
            scores = torch.minimum(scores, scores.gather(1, above))
    if tree.is_chain:
        return scores
    is_root = kept_on_device([node == 0 for node in range(tree.width)], scores.device, torch.bool)
    return scores.masked_fill((tree.parents == NO_NODE) & ~is_root, -torch.inf)
