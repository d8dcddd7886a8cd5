"""`standalone`: any causal language model with the target's vocabulary proposes a chain or a tree.

Chain (topk 1): one forward over the window, then one per further token; every forward writes the KV where the
token will stay if it is accepted. Tree (topk > 1): every level reads the nodes so far under their tree mask, so
each branch sees exactly its own ancestors; the accepted path is read again with the next window.
"""

from __future__ import annotations

import torch

from sglang_hetero_spec.drafters.base import DraftBatch, Drafter, DraftModel
from sglang_hetero_spec.drafters.tree import NO_NODE, DraftTree, chain
from sglang_hetero_spec.pool import DrafterSpec


class StandaloneDrafter(Drafter):
    def __init__(self, spec: DrafterSpec, model: DraftModel, max_seq_len: int | None = None) -> None:
        super().__init__(spec)
        self.model = model
        self._max_seq_len = max_seq_len

    @property
    def max_seq_len(self) -> int | None:
        return self._max_seq_len

    @property
    def window(self) -> int:
        """Committed tokens read again at each step: those whose KV may be missing, and the root.

        A chain lacks at most its own last token, which was proposed but never fed; a tree lacks the whole
        accepted path.
        """
        return 2 if self.spec.topk == 1 else self.spec.num_steps + 1

    def propose(self, batch: DraftBatch) -> DraftTree:
        if batch.newcomers:
            self.model.catch_up(batch, self.window)
        logits = self.model.read_window(batch, self.window)
        return self._chain(batch, logits) if self.spec.topk == 1 else self._tree(batch, logits)

    def _chain(self, batch: DraftBatch, logits: torch.Tensor) -> DraftTree:
        tokens = [batch.root_tokens, logits.argmax(dim=-1)]
        for offset in range(1, self.spec.num_steps):
            logits = self.model.read_next(batch, tokens[-1], offset)
            tokens.append(logits.argmax(dim=-1))
        return chain(torch.stack(tokens, dim=1), num_fed=self.spec.num_steps)

    def _tree(self, batch: DraftBatch, logits: torch.Tensor) -> DraftTree:
        grown = _Beam.from_root(logits, self.spec.topk)
        for _ in range(1, self.spec.num_steps):
            logits = self.model.read_tree(batch, *grown.expanded())
            grown = grown.grow(logits[:, -self.spec.topk :])
        return grown.best(batch.root_tokens, self.spec.num_draft_tokens, self.spec.num_steps)


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
        scores, tokens = logits.float().log_softmax(dim=-1).topk(topk, dim=-1)
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
        scores, tokens = logits.float().log_softmax(dim=-1).topk(self.topk, dim=-1)
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

    def best(self, root_tokens: torch.Tensor, num_draft_tokens: int, depth: int) -> DraftTree:
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
            tokens=torch.cat((root, self.tokens.gather(1, chosen)), dim=1),
            parents=torch.cat((torch.full_like(root, NO_NODE), numbers), dim=1),
            depth=depth,
            num_fed=1,
            scores=torch.cat((torch.zeros_like(root, dtype=torch.float32), self.scores.gather(1, chosen)), dim=1),
        )
