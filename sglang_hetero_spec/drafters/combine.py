"""Two drafters' trees for one request, in one: equal prefixes once, cut to a width by score.

A node's score is the log-probability of the path to it, as its drafter sees it; of a node that both propose, the
higher one. A child's score is never above its parent's, so the best nodes of a stable order are a tree.
"""

from __future__ import annotations

import math

import torch

from sglang_hetero_spec.drafters.tree import NO_NODE, DraftTree

# Of a draft whose drafter gives no scores: that it is right as often as it is for a usual drafter.
_LOG_RATE = math.log(0.7)


def combine(first: DraftTree, second: DraftTree, width: int) -> DraftTree:
    """Both for the same b requests. The root counts in `width`; nodes behind a tree's own are padding. Syncs.

    num_fed is 1: a drafter has read its own drafts at places that are not theirs any more.
    """
    union = _Union(first)
    union.add(second)
    return union.best(width, max(first.depth, second.depth))


class _Union:
    """tokens, parents: [b, n]; scores: [b, n], -inf where there is no node (padding, or a node that is another's)."""

    def __init__(self, tree: DraftTree) -> None:
        self.tokens, self.parents, self.scores = tree.tokens, tree.parents, _scores(tree)

    def add(self, tree: DraftTree) -> None:
        """Node by node, parents first: each is a node that is there already, or a new one."""
        num_old = self.tokens.shape[1]
        scores = _scores(tree)
        place = torch.zeros_like(tree.parents)  # of each node of `tree` in the union
        self.tokens = torch.cat((self.tokens, tree.tokens[:, 1:]), dim=1)
        self.parents = torch.cat((self.parents, torch.full_like(tree.parents[:, 1:], NO_NODE)), dim=1)
        self.scores = torch.cat((self.scores, torch.full_like(scores[:, 1:], -torch.inf)), dim=1)
        for node in range(1, tree.width):
            parent = place.gather(1, tree.parents[:, node : node + 1].clamp(min=0))
            is_real = (scores[:, node] > -torch.inf).unsqueeze(1)
            same = (self.tokens[:, :num_old] == tree.tokens[:, node : node + 1]) & (self.parents[:, :num_old] == parent)
            same &= (self.scores[:, :num_old] > -torch.inf) & is_real
            is_known, known = same.max(dim=1, keepdim=True)
            mine = num_old + node - 1
            at = torch.where(is_known, known, mine)
            place[:, node : node + 1] = at
            better = torch.maximum(self.scores.gather(1, at), scores[:, node : node + 1])
            self.scores.scatter_(1, at, better)
            self.parents[:, mine : mine + 1] = torch.where(is_known | ~is_real, NO_NODE, parent)

    def best(self, width: int, depth: int) -> DraftTree:
        scores = self.scores.clone()
        scores[:, 0] = torch.inf  # the root comes first
        order = scores.sort(dim=1, descending=True, stable=True).indices[:, :width]
        chosen = order.sort(dim=1).values
        kept = self.scores.gather(1, chosen)
        parents = self.parents.gather(1, chosen)
        matches = (parents.unsqueeze(2) == chosen.unsqueeze(1)) & (parents != NO_NODE).unsqueeze(2)
        is_node = kept > -torch.inf
        hangs = matches.any(dim=2) & is_node
        root = self.tokens[:, :1]
        return DraftTree(
            tokens=torch.where(is_node, self.tokens.gather(1, chosen), root),
            parents=torch.where(hangs, matches.int().argmax(dim=2), NO_NODE),
            depth=depth,
            num_fed=1,
            scores=kept,
            num_proposed=tuple((is_node.sum(dim=1) - 1).tolist()),
        )


def _scores(tree: DraftTree) -> torch.Tensor:
    """float32 [b, n], never above the parent's; -inf for padding."""
    if tree.scores is not None:
        scores = tree.scores.float().clone()
        for node in range(1, tree.width):
            parent = scores.gather(1, tree.parents[:, node : node + 1].clamp(min=0))
            scores[:, node : node + 1] = torch.minimum(scores[:, node : node + 1], parent)
    else:
        scores = torch.zeros(tree.tokens.shape, device=tree.tokens.device)
        for node in range(1, tree.width):
            scores[:, node] = scores.gather(1, tree.parents[:, node : node + 1].clamp(min=0))[:, 0] + _LOG_RATE
    is_padding = tree.parents == NO_NODE
    is_padding[:, 0] = False
    return scores.masked_fill(is_padding, -torch.inf)
