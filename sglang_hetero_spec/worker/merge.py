"""One tree per request out of several drafters' proposals, padded to one width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch

from sglang_hetero_spec.cuda.transfer import from_host
from sglang_hetero_spec.drafters.combine import combine
from sglang_hetero_spec.drafters.tree import NO_NODE, DraftTree
from sglang_hetero_spec.worker.written_slots import WrittenSlots


@dataclass(frozen=True)
class Proposal:
    """Trees and whose they are.

    places: in the batch; members: the same, [b_k] int64 on the device; drafters: numbers in the pool, of each.
    """

    places: list[int]
    members: torch.Tensor
    drafters: list[int]
    tree: DraftTree

    def of(self, places: Collection[int]) -> Proposal:
        """Only of these of its requests."""
        numbers = [number for number, place in enumerate(self.places) if place in places]
        return Proposal(
            places=[self.places[number] for number in numbers],
            members=self.members[numbers],
            drafters=[self.drafters[number] for number in numbers],
            tree=self.tree.select(numbers),
        )


def combine_proposals(proposals: Sequence[Proposal], width: int) -> list[Proposal]:
    """At most one proposal for every request. width: nodes of the tree of a request that had two."""
    counts = Counter(place for proposal in proposals for place in proposal.places)
    once = {place for place, count in counts.items() if count == 1}
    if len(once) == len(counts):
        return list(proposals)
    combined = []
    for number, first in enumerate(proposals):
        for second in proposals[number + 1 :]:
            common = set(first.places).intersection(second.places)
            if common:
                one, other = first.of(common), second.of(common)
                combined.append(replace(one, tree=combine(one.tree, other.tree, width)))
    alone = [proposal.of(once) for proposal in proposals if not once.isdisjoint(proposal.places)]
    return alone + combined


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
    """tokens, parents: [b, D] int64; num_fed: [b] int64 (see DraftTree).

    depth: the longest path below any root. is_chain: every tree is a chain (padded behind its end).
    law: None where nobody's drafts were drawn at random.
    """

    tokens: torch.Tensor
    parents: torch.Tensor
    num_fed: torch.Tensor
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
    for proposal in proposals:
        tree, members = proposal.tree, proposal.members
        tokens[members, : tree.width] = tree.tokens
        parents[members, : tree.width] = tree.parents
        num_fed[members] = tree.num_fed
    return merged_tree(tokens, parents, num_fed, proposals, vocab_size)


def merged_tree(
    tokens: torch.Tensor,
    parents: torch.Tensor,
    num_fed: torch.Tensor,
    proposals: Sequence[Proposal],
    vocab_size: int,
) -> MergedTree:
    """The tensors of merged proposals, with what is known of them on the host."""
    batch_size, width = tokens.shape
    trees = [proposal.tree for proposal in proposals]
    covered = sum(proposal.members.numel() for proposal in proposals)
    is_chain = all(tree.is_chain for tree in trees)
    return MergedTree(
        tokens=tokens,
        parents=parents,
        num_fed=num_fed,
        depth=max((tree.depth for tree in trees), default=0),
        is_chain=is_chain,
        is_full_chain=is_chain and (covered == batch_size or width == 1) and all(tree.width == width for tree in trees),
        law=_merge_laws(batch_size, proposals, width, vocab_size),
    )


def mark_fed(
    written: WrittenSlots,
    slots: torch.Tensor,
    proposals: Sequence[Proposal],
    num_fed: torch.Tensor,
    accept_lens: torch.Tensor,
) -> None:
    """Tell `written` what each drafter has read where it stays: of a merged tree the root at most, but by both.

    slots: [b, D], of the nodes; proposals: as the drafters made them; num_fed: [b], of the trees that were verified;
    accept_lens: [b], bonus included.
    """
    reading = [proposal for proposal in proposals if proposal.tree.num_fed]
    if not reading:
        return
    # One call for all: two drafters of one request write into KV pools of their own.
    members = torch.cat([proposal.members for proposal in reading])
    drafters = from_host([number for proposal in reading for number in proposal.drafters], slots.device)
    own = [proposal.tree.num_fed for proposal in reading for _ in proposal.drafters]
    fed = torch.minimum(from_host(own, slots.device), num_fed[members])
    kept = torch.arange(slots.shape[1], device=slots.device) < torch.minimum(accept_lens[members], fed).unsqueeze(1)
    written.mark(drafters.unsqueeze(1).expand_as(kept), slots[members], kept)


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
        law.num_drafts[members] = from_host(tree.proposed, device)
    return law
