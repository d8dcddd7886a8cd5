"""Which forwards of a draft model are captured as CUDA graphs. No GPU, no SGLang."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sglang_hetero_spec.drafters.slots import window_of
from sglang_hetero_spec.pool import DrafterSpec

Kind = Literal["next", "window", "tree"]


@dataclass(frozen=True)
class GraphShape:
    """kind: `next` reads one more token of each request, `window` committed tokens with the root at their end, `tree`
    nodes of a draft tree. width: tokens of each request."""

    kind: Kind
    width: int


def graph_shapes(specs: Iterable[DrafterSpec], deepest: int, has_own_sequences: bool) -> tuple[GraphShape, ...]:
    """For the drafters that one model drafts for. deepest: drafts on a path that another drafter of a request may have
    proposed, 0 without pairs. has_own_sequences: then windows are of any width, and are read without a graph.

    Levels of a tree are read at the width of the last one. `slrs` reads texts, of any width (drafters.text_tree)."""
    shapes: dict[GraphShape, None] = {}
    for spec in specs:
        if not has_own_sequences:
            shapes[GraphShape("window", window_of(spec))] = None
            if deepest + 1 > window_of(spec):
                shapes[GraphShape("window", deepest + 1)] = None
        if spec.num_steps > 1 and spec.vocab != "slrs":
            is_chain = spec.topk == 1
            shapes[GraphShape("next", 1) if is_chain else GraphShape("tree", spec.topk * (spec.num_steps - 1))] = None
    return tuple(shapes)
