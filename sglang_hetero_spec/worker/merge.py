"""One tree per request out of several drafters' proposals, padded to one width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from sglang_hetero_spec.cuda.transfer import kept_on_device
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
            members=kept_on_device([self.places[number] for number in numbers], self.members.device),
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


def num_nodes(proposals: Sequence[Proposal], batch_size: int) -> torch.Tensor:
    """Of each request's tree, the root among them, [b] int64. On the host, unless a tree's `counts` are not."""
    nodes = [1] * batch_size
    for proposal in proposals:
        for place, number in zip(proposal.places, proposal.tree.proposed, strict=True):
            nodes[place] += number
    counted = [proposal for proposal in proposals if proposal.tree.counts is not None]
    if not counted:
        return torch.tensor(nodes)
    members = torch.cat([proposal.members for proposal in counted])
    known = kept_on_device(nodes, members.device)
    return known.index_put((members,), 1 + torch.cat([proposal.tree.counts for proposal in counted]))


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
    """tokens, parents: [b, D] int64; num_fed: of each request (see DraftTree).

    depth: the longest path below any root. is_chain: every tree is a chain (padded behind its end).
    law: None where nobody's drafts were drawn at random. Nobody writes to `parents`: of chains they are kept.
    """

    tokens: torch.Tensor
    parents: torch.Tensor
    num_fed: tuple[int, ...]
    depth: int
    is_chain: bool
    is_full_chain: bool
    law: MergedLaw | None = None

    @property
    def width(self) -> int:
        return self.tokens.shape[1]


# Of each proposal its places and the width of its trees.
Shape = tuple[tuple[tuple[int, ...], int], ...]


def merge_trees(
    root_tokens: torch.Tensor, proposals: Sequence[Proposal], width: int, vocab_size: int = 0
) -> MergedTree:
    """Scatter the proposals into [b, width] trees; whoever has no proposal keeps the root alone.

    root_tokens: [b] int64. width must hold every proposal. vocab_size: of the target, for the laws of
    drafts. Padding nodes are unreachable (parent -1) and repeat the root's token, which is always a valid id.
    """
    batch_size = root_tokens.shape[0]
    device = root_tokens.device
    trees = [proposal.tree for proposal in proposals]
    shape = tuple((tuple(proposal.places), proposal.tree.width) for proposal in proposals)
    tokens = root_tokens.unsqueeze(1).repeat(1, width)
    if trees:
        cells = kept_on_device(_cells(shape, width), device)
        tokens.view(-1)[cells] = _flat([tree.tokens for tree in trees])
    if all(tree.is_chain for tree in trees):
        parents = kept_on_device(_chain_parents(shape, batch_size, width), device).view(batch_size, width)
    else:
        parents = torch.full((batch_size, width), NO_NODE, dtype=torch.int64, device=device)
        parents.view(-1)[cells] = _flat([tree.parents for tree in trees])
    return merged_tree(tokens, parents, proposals, vocab_size)


def _flat(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([part.reshape(-1) for part in parts])


@lru_cache(maxsize=256)
def _cells(shape: Shape, width: int) -> tuple[int, ...]:
    """Where the proposals' nodes lie in the merged trees, flat."""
    return tuple(place * width + node for places, own in shape for place in places for node in range(own))


@lru_cache(maxsize=256)
def _chain_parents(shape: Shape, batch_size: int, width: int) -> tuple[int, ...]:
    parents = [NO_NODE] * (batch_size * width)
    for places, own in shape:
        for place in places:
            parents[place * width : place * width + own] = range(NO_NODE, own - 1)
    return tuple(parents)


def merged_tree(
    tokens: torch.Tensor, parents: torch.Tensor, proposals: Sequence[Proposal], vocab_size: int
) -> MergedTree:
    """The tensors of merged proposals, with what is known of them on the host."""
    batch_size, width = tokens.shape
    trees = [proposal.tree for proposal in proposals]
    num_fed = [0] * batch_size
    for proposal in proposals:
        for place in proposal.places:
            num_fed[place] = proposal.tree.num_fed
    covered = sum(len(proposal.places) for proposal in proposals)
    is_chain = all(tree.is_chain for tree in trees)
    return MergedTree(
        tokens=tokens,
        parents=parents,
        num_fed=tuple(num_fed),
        depth=max((tree.depth for tree in trees), default=0),
        is_chain=is_chain,
        is_full_chain=is_chain and (covered == batch_size or width == 1) and all(tree.width == width for tree in trees),
        law=_merge_laws(batch_size, proposals, width, vocab_size),
    )


def mark_fed(
    written: WrittenSlots,
    slots: torch.Tensor,
    proposals: Sequence[Proposal],
    num_fed: Sequence[int],
    accept_lens: torch.Tensor,
) -> None:
    """Tell `written` what each drafter has read where it stays: of a merged tree the root at most, but by both.

    slots: [b, D], of the nodes; proposals: as the drafters made them; num_fed: of each of the b trees that were
    verified; accept_lens: [b], bonus included.
    """
    reading = [proposal for proposal in proposals if proposal.tree.num_fed]
    if not reading:
        return
    # One call for all: two drafters of one request write into KV pools of their own.
    places = [place for proposal in reading for place in proposal.places]
    drafters = [number for proposal in reading for number in proposal.drafters]
    fed = [min(proposal.tree.num_fed, num_fed[place]) for proposal in reading for place in proposal.places]
    if places != list(range(slots.shape[0])):
        members = kept_on_device(places, slots.device)
        slots, accept_lens = slots[members], accept_lens[members]
    steps = kept_on_device(_fed_steps(tuple(fed), slots.shape[1]), slots.device, torch.int32).view(slots.shape)
    written.mark(drafters, slots, steps < accept_lens.unsqueeze(1))


_NEVER = torch.iinfo(torch.int32).max


@lru_cache(maxsize=256)
def _fed_steps(fed: tuple[int, ...], width: int) -> tuple[int, ...]:
    """Of each request and node the number of the node where its KV stays if it is accepted, flat."""
    return tuple(node if node < most else _NEVER for most in fed for node in range(width))


def _merge_laws(batch_size: int, proposals: Sequence[Proposal], width: int, vocab_size: int) -> MergedLaw | None:
    known = [proposal for proposal in proposals if proposal.tree.law is not None]
    if not known:
        return None
    device = known[0].members.device
    num_drafts = [0] * batch_size
    for proposal in known:
        for place, count in zip(proposal.places, proposal.tree.proposed, strict=True):
            num_drafts[place] = count
    is_drawn = {place for proposal in known for place in proposal.places}
    law = MergedLaw(
        drawn=kept_on_device([place in is_drawn for place in range(batch_size)], device, torch.bool),
        probs=torch.zeros((batch_size, width, vocab_size), device=device),
        void=torch.zeros((batch_size, width), dtype=torch.bool, device=device),
        num_drafts=kept_on_device(num_drafts, device),
    )
    for proposal in known:
        tree, members = proposal.tree, proposal.members
        law.probs[members, : tree.width - 1] = tree.law.over_target(vocab_size)
        if tree.law.void is not None:
            law.void[members, : tree.width - 1] = tree.law.void
    return law
