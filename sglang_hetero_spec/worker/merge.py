"""One tree per request out of several drafters' proposals, padded to one width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sglang_hetero_spec.drafters.tree import NO_NODE, DraftTree


@dataclass(frozen=True)
class Proposal:
    """A drafter's trees and whose they are. members: [b_k] int64, places in the batch, ascending."""

    drafter: int
    members: torch.Tensor
    tree: DraftTree


@dataclass(frozen=True)
class MergedLaw:
    """What is known of how drafts were drawn. Entry i of a chain is about the draft behind its node i.

    drawn: [b] bool, whose drafts were drawn at random; of the others nothing else here means anything.
    probs: [b, D, V] float32; void: [b, D] bool, drafts that are no target token (see DraftLaw).
    num_drafts: [b] int64.
    """

    drawn: torch.Tensor
    probs: torch.Tensor
    void: torch.Tensor
    num_drafts: torch.Tensor


@dataclass(frozen=True)
class MergedTree:
    """tokens, parents: [b, D] int64; num_fed: [b] int64 (see DraftTree); drafter: [b] int64.

    depth: the longest path below any root. is_chain: every tree is a chain (padded behind its end).
    law: None where nobody's drafts were drawn at random.
    """

    tokens: torch.Tensor
    parents: torch.Tensor
    num_fed: torch.Tensor
    drafter: torch.Tensor
    depth: int
    is_chain: bool
    is_full_chain: bool
    law: MergedLaw | None = None

    @property
    def width(self) -> int:
        return self.tokens.shape[1]


def merge_trees(
    root_tokens: torch.Tensor, proposals: Sequence[Proposal], width: int, vocab_size: int = 0
) -> MergedTree:
    """Scatter the proposals into [b, width] trees; whoever has no proposal keeps the root alone.

    root_tokens: [b] int64. width must hold every proposal. vocab_size: of the target, for the laws of
    drafts. Padding nodes are unreachable (parent -1) and repeat the root's token, which is always a valid id.
    """
    batch_size = root_tokens.shape[0]
    device = root_tokens.device
    tokens = root_tokens.unsqueeze(1).repeat(1, width)
    parents = torch.full((batch_size, width), NO_NODE, dtype=torch.int64, device=device)
    num_fed = torch.zeros(batch_size, dtype=torch.int64, device=device)
    drafter = torch.zeros(batch_size, dtype=torch.int64, device=device)
    for proposal in proposals:
        tree, members = proposal.tree, proposal.members
        tokens[members, : tree.width] = tree.tokens
        parents[members, : tree.width] = tree.parents
        num_fed[members] = tree.num_fed
        drafter[members] = proposal.drafter
    trees = [proposal.tree for proposal in proposals]
    covered = sum(proposal.members.numel() for proposal in proposals)
    is_chain = all(tree.is_chain for tree in trees)
    return MergedTree(
        tokens=tokens,
        parents=parents,
        num_fed=num_fed,
        drafter=drafter,
        depth=max((tree.depth for tree in trees), default=0),
        is_chain=is_chain,
        is_full_chain=is_chain and (covered == batch_size or width == 1) and all(tree.width == width for tree in trees),
        law=_merge_laws(batch_size, proposals, width, vocab_size),
    )


def _merge_laws(batch_size: int, proposals: Sequence[Proposal], width: int, vocab_size: int) -> MergedLaw | None:
    known = [proposal for proposal in proposals if proposal.tree.law is not None]
    if not known:
        return None
    device = known[0].members.device
    law = MergedLaw(
        drawn=torch.zeros(batch_size, dtype=torch.bool, device=device),
        probs=torch.zeros((batch_size, width, vocab_size), device=device),
        void=torch.zeros((batch_size, width), dtype=torch.bool, device=device),
        num_drafts=torch.zeros(batch_size, dtype=torch.int64, device=device),
    )
    for proposal in known:
        tree, members = proposal.tree, proposal.members
        law.drawn[members] = True
        law.probs[members, : tree.width - 1] = tree.law.over_target(vocab_size)
        if tree.law.void is not None:
            law.void[members, : tree.width - 1] = tree.law.void
        law.num_drafts[members] = torch.tensor(tree.proposed, device=device)
    return law
