"""Draft trees as flat tensors, and the layout that a verify forward needs of them.

A tree has node 0 as its root: the last committed token (SGLang's bonus token). Node i > 0 has
`parents[i] < i`. A node whose parent is -1 (other than the root) is padding: no path from the root
reaches it, so verification never looks at it. All tokens are ids of the target's vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from sglang_hetero_spec.cuda.transfer import kept_on_device

NO_NODE = -1


@dataclass(frozen=True)
class DraftLaw:
    """The distributions that the drafts of a chain were drawn from; n - 1 drafts behind the root.

    probs: [b, n - 1, m] float32, a row may sum to less than 1: the rest is proposals that are no target token.
    target_ids: [m] int64, the target id of each column; None where column i is target id i.
    void: [b, n - 1] bool, the drafts that are no target token: rejected for certain (the node's token means nothing).
        None where there are none.
    """

    probs: torch.Tensor
    target_ids: torch.Tensor | None = None
    void: torch.Tensor | None = None

    def over_target(self, vocab_size: int) -> torch.Tensor:
        """float32 [b, n - 1, vocab_size]."""
        if self.target_ids is None and self.probs.shape[-1] == vocab_size:
            return self.probs
        wide = self.probs.new_zeros(*self.probs.shape[:-1], vocab_size)
        if self.target_ids is None:
            wide[..., : self.probs.shape[-1]] = self.probs
        else:
            wide[..., self.target_ids] = self.probs
        return wide

    def select(self, numbers: list[int]) -> DraftLaw:
        """Of these of the b requests."""
        rows = kept_on_device(numbers, self.probs.device)
        return replace(self, probs=self.probs[rows], void=None if self.void is None else self.void[rows])


@dataclass(frozen=True)
class DraftTree:
    """What one drafter proposes for its requests in one verify step.

    tokens: [b, n] int64; parents: [b, n] int64; depth: longest path below the root, in tokens.
    num_fed: nodes along any path, the root among them, whose KV the drafter has written at the very slot
        that the token will keep if it is accepted (a chain writes in place, a branching tree only its root).
    scores: [b, n] float32, log-probability of the path to each node, or None where nobody asked for it.
    law: of a chain whose drafts were drawn at random; None where they are the drafter's choice.
    num_proposed: drafts of each request where they are not all n - 1 (the rest of the nodes is padding).
    counts: the same, [b] int64, where only the device knows them.
    is_chain: no node of any request has siblings or is padding; False where that is not known.
    """

    tokens: torch.Tensor
    parents: torch.Tensor
    depth: int
    num_fed: int
    scores: torch.Tensor | None = None
    law: DraftLaw | None = None
    num_proposed: tuple[int, ...] | None = None
    is_chain: bool = False
    counts: torch.Tensor | None = None

    @property
    def width(self) -> int:
        return self.tokens.shape[1]

    @property
    def proposed(self) -> tuple[int, ...]:
        """Drafts of each request; means nothing where there are `counts`."""
        return (self.width - 1,) * self.tokens.shape[0] if self.num_proposed is None else self.num_proposed

    def select(self, numbers: list[int]) -> DraftTree:
        """Of these of the b requests."""
        if numbers == list(range(len(self.tokens))):
            return self
        rows = kept_on_device(numbers, self.tokens.device)
        return replace(
            self,
            tokens=self.tokens[rows],
            parents=self.parents[rows],
            scores=None if self.scores is None else self.scores[rows],
            law=None if self.law is None else self.law.select(numbers),
            num_proposed=self.num_proposed and tuple(self.num_proposed[number] for number in numbers),
            counts=None if self.counts is None else self.counts[rows],
        )


@dataclass(frozen=True)
class TreeLayout:
    """A merged tree as SGLang's verify input wants it. b requests, D nodes each.

    positions: [b, D] int64, offset from the root's position; ancestors: [b, D, D] bool, row i sees column j;
    next_child, next_sibling: [b, D] int64, node numbers within the row, -1 where there is none.
    """

    positions: torch.Tensor
    ancestors: torch.Tensor
    next_child: torch.Tensor
    next_sibling: torch.Tensor


def chain(
    tokens: torch.Tensor, num_fed: int, law: DraftLaw | None = None, scores: torch.Tensor | None = None
) -> DraftTree:
    """The tree without branches. tokens: [b, n] int64, the root first."""
    batch_size, width = tokens.shape
    parents = _chain_parents(width, tokens.device).expand(batch_size, width)
    return DraftTree(
        tokens=tokens, parents=parents, depth=width - 1, num_fed=num_fed, law=law, scores=scores, is_chain=True
    )


@lru_cache(maxsize=256)
def _chain_parents(width: int, device: torch.device) -> torch.Tensor:
    return torch.arange(-1, width - 1, device=device)


def lay_out(parents: torch.Tensor) -> TreeLayout:
    """Positions, visibility and the child/sibling links of flat trees.

    parents: [b, D] int64 as above. Siblings are linked in ascending node order, which is the order of
    verification (SGLang's kernels walk next_child, then next_sibling).
    """
    nodes = torch.arange(parents.shape[1], device=parents.device)
    is_child = _is_child(parents)
    ancestors, positions = ancestors_of(parents)
    hangs = parents != NO_NODE
    positions = torch.where(hangs | (nodes == 0), positions, 1)
    # The root has no siblings: a walk over the links (SGLang's grammar mask follows them) must not find padding there.
    later_sibling = (parents.unsqueeze(2) == parents.unsqueeze(1)) & (nodes.unsqueeze(1) < nodes) & hangs.unsqueeze(2)
    return TreeLayout(
        positions=positions,
        ancestors=ancestors,
        next_child=_first_true(is_child.transpose(1, 2)),
        next_sibling=_first_true(later_sibling),
    )


@lru_cache(maxsize=256)
def chain_layout(width: int, device: torch.device) -> TreeLayout:
    """`lay_out` of one chain, [1, width]; the caller expands it over its batch."""
    return lay_out(_chain_parents(width, device).unsqueeze(0))


def ancestors_of(parents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which nodes each node sees, itself among them (bool [b, n, n]), and how many lie above it (int64 [b, n]).

    parents: [b, n] int64, -1 where nothing lies above. Repeated squaring: log2(n) small matrix products.
    """
    width = parents.shape[1]
    reach = _is_child(parents).float() + torch.eye(width, device=parents.device)
    for _ in range((width - 1).bit_length()):
        reach = (reach @ reach).clamp_(max=1.0)
    ancestors = reach > 0
    return ancestors, ancestors.sum(dim=-1) - 1


def finite(logits: torch.Tensor) -> torch.Tensor:
    """float32, and a number everywhere, whatever a draft model came to."""
    return logits.float().nan_to_num()


def _is_child(parents: torch.Tensor) -> torch.Tensor:
    """bool [b, n, n]: row i is a child of column j."""
    return parents.unsqueeze(2) == torch.arange(parents.shape[1], device=parents.device)


def _first_true(flags: torch.Tensor) -> torch.Tensor:
    """Index of the first True along the last dimension, -1 where there is none."""
    any_true, first = flags.max(dim=-1)
    return torch.where(any_true, first, NO_NODE)
