"""Growing a draft tree with a draft model: a chain token by token, a tree level by level.

Chain (topk 1): one forward per token; every forward writes the KV where the token will stay if it is accepted.
Tree (topk > 1): every level reads the nodes so far under their tree mask, so each branch sees exactly its own
ancestors; the accepted path is read again with the next window.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sglang_hetero_spec.drafters.base import DraftBatch, DraftModel
from sglang_hetero_spec.drafters.tree import NO_NODE, DraftLaw, DraftTree, chain, finite
from sglang_hetero_spec.pool import DrafterSpec


@dataclass(frozen=True)
class Columns:
    """What the columns of a draft model's logits stand for: draft_ids, target_ids [m] int64, or None for themselves."""

    draft_ids: torch.Tensor | None = None
    target_ids: torch.Tensor | None = None

    def as_draft(self, columns: torch.Tensor) -> torch.Tensor:
        return columns if self.draft_ids is None else self.draft_ids[columns]

    def as_target(self, columns: torch.Tensor) -> torch.Tensor:
        return columns if self.target_ids is None else self.target_ids[columns]


SAME_IDS = Columns()


def chain_room(spec: DrafterSpec) -> int:
    """Places behind the root that a chain or tree of this shape writes to."""
    return max(spec.num_steps, spec.topk * (spec.num_steps - 1)) + 1


@dataclass(frozen=True)
class GrownChain:
    """columns: [b, num_steps] int64 of the logits; probs: [b, num_steps, m] that they were drawn from, or None; scores:
    [b, num_steps] float32, log-probability of the chain up to each draft, where the batch wants it."""

    columns: torch.Tensor
    probs: torch.Tensor | None
    scores: torch.Tensor | None


def grow(
    spec: DrafterSpec,
    model: DraftModel,
    batch: DraftBatch,
    logits: torch.Tensor,
    root_tokens: torch.Tensor,
    columns: Columns = SAME_IDS,
) -> DraftTree:
    """The tree of `spec` behind the root. logits: [b, m] after it; root_tokens: [b], target ids."""
    if spec.topk > 1:
        return grow_tree(spec, model, batch, logits, root_tokens, columns)
    grown = grow_chain(spec.num_steps, model, batch, logits, columns)
    tokens = torch.cat((root_tokens.unsqueeze(1), columns.as_target(grown.columns)), dim=1)
    law = None if grown.probs is None else DraftLaw(grown.probs, columns.target_ids)
    return chain(tokens, num_fed=spec.num_steps, law=law, scores=_with_root(grown.scores))


def _with_root(scores: torch.Tensor | None) -> torch.Tensor | None:
    return None if scores is None else torch.cat((torch.zeros_like(scores[:, :1]), scores), dim=1)


def grow_chain(
    num_steps: int, model: DraftModel, batch: DraftBatch, logits: torch.Tensor, columns: Columns = SAME_IDS
) -> GrownChain:
    """Drawn at random where the batch asks for it, else the likeliest."""
    drafts: list[torch.Tensor] = []
    probs: list[torch.Tensor] = []
    scores: list[torch.Tensor] = []
    for step in range(num_steps):
        if step:
            logits = model.read_next(batch, columns.as_draft(drafts[-1]), step)
        if batch.sampler is None:
            drafts.append(logits.argmax(dim=-1))
        else:
            draft, law = batch.sampler.draw(logits, step)
            drafts.append(draft)
            probs.append(law)
        if batch.wants_scores:
            scores.append(finite(logits).log_softmax(dim=-1).gather(1, drafts[-1].unsqueeze(1)).squeeze(1))
    return GrownChain(
        columns=torch.stack(drafts, dim=1),
        probs=torch.stack(probs, dim=1) if probs else None,
        scores=torch.stack(scores, dim=1).cumsum(dim=1) if scores else None,
    )


def grow_tree(
    spec: DrafterSpec,
    model: DraftModel,
    batch: DraftBatch,
    logits: torch.Tensor,
    root_tokens: torch.Tensor,
    columns: Columns,
) -> DraftTree:
    grown = _Beam.from_root(logits, spec.topk)
    for _ in range(1, spec.num_steps):
        expanded, parents = grown.expanded()
        logits = model.read_tree(batch, columns.as_draft(expanded), parents)
        grown = grown.grow(logits[:, -spec.topk :])
    return grown.best(root_tokens, spec.num_draft_tokens, spec.num_steps, columns)


class _Beam:
    """All candidate nodes drawn so far, and the topk of the last level that were expanded.

    Candidates are [b, m]: token, path log-probability, and the candidate that is their parent (-1 the root).
    frontier: [b, topk] candidate numbers of the last level; history: those of the earlier levels, level by level.
    """

    def __init__(
        self,
        tokens: torch.Tensor,
        scores: torch.Tensor,
        parents: torch.Tensor,
        expanded: torch.Tensor,
        topk: int,
    ) -> None:
        self.tokens, self.scores, self.parents = tokens, scores, parents
        self._expanded = expanded
        self.topk = topk

    @classmethod
    def from_root(cls, logits: torch.Tensor, topk: int) -> _Beam:
        scores, tokens = finite(logits).log_softmax(dim=-1).topk(topk, dim=-1)
        parents = torch.full_like(tokens, NO_NODE)
        expanded = torch.arange(topk, device=tokens.device).expand(tokens.shape[0], topk)
        return cls(tokens, scores, parents, expanded, topk)

    def expanded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and parents [b, n] of the expanded nodes, numbered among themselves."""
        parents = self.parents.gather(1, self._expanded)
        # An expanded node's parent is itself expanded (or the root): find its number among the expanded.
        matches = parents.unsqueeze(2) == self._expanded.unsqueeze(1)
        numbers = torch.where(parents == NO_NODE, NO_NODE, matches.int().argmax(dim=-1))
        return self.tokens.gather(1, self._expanded), numbers

    def grow(self, logits: torch.Tensor) -> _Beam:
        """logits [b, topk, V] after the frontier: draw topk children of each, expand the best topk of them."""
        batch_size = logits.shape[0]
        frontier = self._expanded[:, -self.topk :]
        scores, tokens = finite(logits).log_softmax(dim=-1).topk(self.topk, dim=-1)
        scores = (scores + self.scores.gather(1, frontier).unsqueeze(2)).reshape(batch_size, -1)
        parents = frontier.unsqueeze(2).expand_as(tokens).reshape(batch_size, -1)
        best = scores.topk(self.topk, dim=-1).indices.sort(dim=-1).values + self.tokens.shape[1]
        return _Beam(
            tokens=torch.cat((self.tokens, tokens.reshape(batch_size, -1)), dim=1),
            scores=torch.cat((self.scores, scores), dim=1),
            parents=torch.cat((self.parents, parents), dim=1),
            expanded=torch.cat((self._expanded, best), dim=1),
            topk=self.topk,
        )

    def best(self, root_tokens: torch.Tensor, num_draft_tokens: int, depth: int, columns: Columns) -> DraftTree:
        """The num_draft_tokens - 1 likeliest candidates under the root.

        A child's path is never likelier than its parent's and comes later, so taking the likeliest in a stable
        order takes the parent of whatever it takes.
        """
        order = self.scores.sort(dim=-1, descending=True, stable=True).indices[:, : num_draft_tokens - 1]
        chosen = order.sort(dim=-1).values
        parents = self.parents.gather(1, chosen)
        matches = parents.unsqueeze(2) == chosen.unsqueeze(1)
        numbers = torch.where(parents == NO_NODE, 0, matches.int().argmax(dim=-1) + 1)
        root = root_tokens.unsqueeze(1)
        return DraftTree(
            tokens=torch.cat((root, columns.as_target(self.tokens.gather(1, chosen))), dim=1),
            parents=torch.cat((torch.full_like(root, NO_NODE), numbers), dim=1),
            depth=depth,
            num_fed=1,
            scores=torch.cat((torch.zeros_like(root, dtype=torch.float32), self.scores.gather(1, chosen)), dim=1),
        )
