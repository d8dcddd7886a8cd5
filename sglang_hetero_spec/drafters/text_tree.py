"""All short texts that SLRS must know the drafter's law behind, read with few forwards of a tree."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sglang_hetero_spec.drafters.base import DraftBatch, DraftModel
from sglang_hetero_spec.drafters.tree import NO_NODE
from sglang_hetero_spec.vocab.psi_plan import PsiPlan
from sglang_hetero_spec.vocab.psi_rules import UNDECIDED, UNMAPPED

# Nodes of one forward; its mask has the square of them.
PART = 192


@dataclass(frozen=True)
class Part:
    """Nodes read by one forward, parents before children. tokens, parents: [n] int64, parents among themselves (-1
    the root); nodes: [n] int64, their numbers in the plan."""

    tokens: torch.Tensor
    parents: torch.Tensor
    nodes: torch.Tensor


class TextTree:
    """A PsiPlan in tensors. width: nodes of the largest part."""

    def __init__(self, plan: PsiPlan, num_target: int, device: torch.device | str) -> None:
        self._num_target = num_target
        self._parts = _parts(plan, device)
        self.width = max((len(part.nodes) for part in self._parts), default=0)
        self._levels = _levels(plan, device)
        self._parents = torch.from_numpy(plan.parents).long().to(device)
        self._last = torch.from_numpy(plan.last).long().to(device)
        outcomes = torch.from_numpy(plan.outcomes).long().to(device).flatten()
        self._decided = (outcomes != UNDECIDED).nonzero().squeeze(1)
        self._outcomes = outcomes[self._decided] - UNMAPPED
        self._num_sequences = len(plan.sequences)

    def psi(
        self, model: DraftModel, batch: DraftBatch, logits: torch.Tensor, temperatures: torch.Tensor | float
    ) -> torch.Tensor:
        """float32 [b, num_target]; what a row lacks to 1 is text that begins with no target token.

        logits: [b, V_draft] behind the root; temperatures: [b, 1], of the draft tokens.
        """
        found = []
        # One request after the other: a law behind every text is V_draft times as many numbers as there are texts.
        for number in range(len(logits)):
            one = _only(batch, number)
            hot = temperatures if isinstance(temperatures, float) else temperatures[number]
            found.append(self._psi_of(self._rows(model, one, logits[number : number + 1], hot)))
        return torch.stack(found)

    def _rows(
        self, model: DraftModel, batch: DraftBatch, logits: torch.Tensor, temperature: torch.Tensor | float
    ) -> torch.Tensor:
        """The law behind every text, float64 [N, V_draft]."""
        rows = logits.new_empty((self._num_sequences, logits.shape[1]), dtype=torch.float64)
        rows[0] = (logits[0].double() / temperature).softmax(dim=-1)
        for part in self._parts:
            read = model.read_tree(batch, part.tokens.unsqueeze(0), part.parents.unsqueeze(0))[0]
            rows[part.nodes] = (read.double() / temperature).softmax(dim=-1)
        return rows

    def _psi_of(self, rows: torch.Tensor) -> torch.Tensor:
        reach = rows.new_ones(self._num_sequences)
        for nodes in self._levels:
            above = self._parents[nodes]
            reach[nodes] = reach[above] * rows[above, self._last[nodes]]
        weights = (reach.unsqueeze(1) * rows).flatten()[self._decided]
        mass = rows.new_zeros(self._num_target + 1).index_add_(0, self._outcomes, weights)
        return mass[1:].float()


def _only(batch: DraftBatch, number: int) -> DraftBatch:
    one = slice(number, number + 1)
    return DraftBatch(
        rows=batch.rows[one],
        seq_lens=batch.seq_lens[one],
        root_tokens=batch.root_tokens[one],
        seq_lens_cpu=None if batch.seq_lens_cpu is None else batch.seq_lens_cpu[one],
        rids=batch.rids[one],
    )


def _levels(plan: PsiPlan, device: torch.device | str) -> list[torch.Tensor]:
    """Node numbers by length of text, from 1."""
    levels: dict[int, list[int]] = {}
    for node, sequence in enumerate(plan.sequences):
        levels.setdefault(len(sequence), []).append(node)
    return [torch.tensor(levels[length], device=device) for length in sorted(levels) if length]


def _parts(plan: PsiPlan, device: torch.device | str) -> list[Part]:
    """Runs of the tree in depth-first order, each with the ancestors of its first node."""
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(plan.parents.tolist()):
        children.setdefault(parent, []).append(node)
    order: list[int] = []
    todo = list(reversed(children.get(0, [])))
    while todo:
        node = todo.pop()
        order.append(node)
        todo += reversed(children.get(node, []))
    return [_part(plan, order[i : i + PART], device) for i in range(0, len(order), PART)]


def _part(plan: PsiPlan, run: list[int], device: torch.device | str) -> Part:
    parents = plan.parents
    above = []
    node = int(parents[run[0]])
    while node > 0:
        above.append(node)
        node = int(parents[node])
    nodes = [*reversed(above), *run]
    place = {node: i for i, node in enumerate(nodes)}
    return Part(
        tokens=torch.tensor([int(plan.last[node]) for node in nodes], device=device),
        parents=torch.tensor([place.get(int(parents[node]), NO_NODE) for node in nodes], device=device),
        nodes=torch.tensor(nodes, device=device),
    )
