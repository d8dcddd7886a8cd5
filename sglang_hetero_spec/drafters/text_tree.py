"""All short texts that SLRS must know the drafter's law behind, read with few forwards of a tree."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sglang_hetero_spec.drafters.base import DraftBatch, DraftModel
from sglang_hetero_spec.drafters.tree import NO_NODE, finite
from sglang_hetero_spec.vocab.psi_plan import PsiPlan
from sglang_hetero_spec.vocab.psi_rules import UNDECIDED, UNMAPPED

# Nodes of one forward: its mask has the square of them, its logits V_draft times as many.
PART = 192
_LOGITS = 1 << 21


@dataclass(frozen=True)
class Part:
    """Nodes read by one forward: a run of the tree in depth-first order, behind the ancestors of its first node.

    tokens, parents: [n] int64, parents come before their children and are numbered among themselves, -1 is the root.
    levels: node numbers by length of text. columns: [(n - num_above) * V_draft] int64, where the mass of each next
    token of each node of the run goes to. num_above: ancestors, which belong to other runs.
    """

    tokens: torch.Tensor
    parents: torch.Tensor
    levels: tuple[torch.Tensor, ...]
    columns: torch.Tensor
    num_above: int


class TextTree:
    """A PsiPlan in tensors. width: nodes of the largest part."""

    def __init__(self, plan: PsiPlan, num_target: int, device: torch.device | str) -> None:
        self._num_target = num_target
        self._parts = _parts(plan, device)
        self.width = max((len(part.tokens) for part in self._parts), default=0)
        self._root_columns = _columns(plan, [0], device)

    def psi(
        self, model: DraftModel, batch: DraftBatch, logits: torch.Tensor, temperatures: torch.Tensor | float
    ) -> torch.Tensor:
        """float32 [b, num_target]; what a row lacks to 1 is text that begins with no target token.

        logits: [b, V_draft] behind the root; temperatures: [b, 1], of the draft tokens.
        """
        root = (finite(logits) / temperatures).softmax(dim=-1).unsqueeze(1)
        # Two columns in front: text that begins with no target token, and text that may still begin with several.
        mass = root.new_zeros(len(root), self._num_target + 2)
        _add(mass, self._root_columns, root)
        for part in self._parts:
            shape = len(root), len(part.tokens)
            read = model.read_tree(batch, part.tokens.expand(shape), part.parents.expand(shape))
            rows = (finite(read) / _per_node(temperatures)).softmax(dim=-1)
            weights = rows * _reach(part, rows, root).unsqueeze(2)
            _add(mass, part.columns, weights[:, part.num_above :])
        return mass[:, 2:]


def _per_node(temperatures: torch.Tensor | float) -> torch.Tensor | float:
    return temperatures if isinstance(temperatures, float) else temperatures.unsqueeze(1)


def _add(mass: torch.Tensor, columns: torch.Tensor, weights: torch.Tensor) -> None:
    """weights: [b, n, V_draft]."""
    mass.scatter_add_(1, columns.expand(len(mass), -1), weights.flatten(1))


def _reach(part: Part, rows: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
    """How likely the drafter writes each text, [b, n]. rows: [b, n, V_draft] behind them, root: [b, 1, V_draft]."""
    reach = rows.new_ones(rows.shape[:2])
    for depth, nodes in enumerate(part.levels):
        tokens = part.tokens[nodes]
        if depth == 0:
            reach[:, nodes] = root[:, 0, tokens]
        else:
            above = part.parents[nodes]
            reach[:, nodes] = reach[:, above] * rows[:, above, tokens]
    return reach


def _columns(plan: PsiPlan, nodes: list[int], device: torch.device | str) -> torch.Tensor:
    """[len(nodes) * V_draft] int64: 0 unmapped, 1 undecided, 2 + target id."""
    outcomes = torch.from_numpy(plan.outcomes[nodes]).long().flatten()
    columns = torch.where(outcomes >= 0, outcomes + 2, torch.where(outcomes == UNMAPPED, 0, 1))
    assert bool(((outcomes >= 0) | (outcomes == UNMAPPED) | (outcomes == UNDECIDED)).all())
    return columns.to(device)


def _parts(plan: PsiPlan, device: torch.device | str) -> list[Part]:
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(plan.parents.tolist()):
        children.setdefault(parent, []).append(node)
    order: list[int] = []
    todo = list(reversed(children.get(0, [])))
    while todo:
        node = todo.pop()
        order.append(node)
        todo += reversed(children.get(node, []))
    size = max(1, min(PART, _LOGITS // plan.outcomes.shape[1]))
    return [_part(plan, order[i : i + size], device) for i in range(0, len(order), size)]


def _part(plan: PsiPlan, run: list[int], device: torch.device | str) -> Part:
    above = []
    node = int(plan.parents[run[0]])
    while node > 0:
        above.append(node)
        node = int(plan.parents[node])
    nodes = [*reversed(above), *run]
    place = {node: i for i, node in enumerate(nodes)}
    lengths = [len(plan.sequences[node]) for node in nodes]
    return Part(
        tokens=torch.tensor([int(plan.last[node]) for node in nodes], device=device),
        parents=torch.tensor([place.get(int(plan.parents[node]), NO_NODE) for node in nodes], device=device),
        levels=tuple(
            torch.tensor([i for i, length in enumerate(lengths) if length == wanted], device=device)
            for wanted in range(1, max(lengths) + 1)
        ),
        columns=_columns(plan, run, device),
        num_above=len(above),
    )
