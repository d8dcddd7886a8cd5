"""Checks and fills in the shape of each drafter's draft tree."""

from __future__ import annotations

from typing import NamedTuple

from sglang_hetero_spec.pool import kinds
from sglang_hetero_spec.pool.errors import PoolError, shown
from sglang_hetero_spec.pool.schema import Drafter

_CHAIN_ONLY = ("slem", "slrs", kinds.AUTO)


class TreeShape(NamedTuple):
    num_steps: int
    topk: int
    num_draft_tokens: int


def tree_shape(drafter: Drafter, where: str) -> TreeShape:
    """The drafter's shape with defaults filled in: `topk` 1, and `num_steps + 1` draft tokens for a chain.

    A drafter with a vocabulary of its own drafts a chain, but for `tli`, which drafts trees too. `slem` makes a tree of
    the chain's text: its `num_steps` are tokens of the drafter, its `num_draft_tokens` nodes of target tokens. `auto`
    has a shape that every mode can have. `where` is "<file>: `drafters[i]"; PoolError names the field.
    """
    if drafter.kind == "none":
        return _no_tree(drafter, where)
    if drafter.num_steps is None:
        raise PoolError(f"{where}.num_steps` is missing; give a whole number from 1 to {kinds.MAX_NUM_STEPS}.")
    num_steps = _bounded(drafter.num_steps, 1, kinds.MAX_NUM_STEPS, f"{where}.num_steps`")
    topk = _bounded(1 if drafter.topk is None else drafter.topk, 1, kinds.MAX_TOPK, f"{where}.topk`")
    if topk > 1 and drafter.vocab in _CHAIN_ONLY:
        raise PoolError(
            f"{where}.topk` is {topk}, but a drafter whose `vocab` is {shown(drafter.vocab)} drafts a chain; give 1, or"
            " leave it out."
        )
    return TreeShape(num_steps, topk, _num_draft_tokens(drafter, num_steps, topk, f"{where}.num_draft_tokens`"))


def _no_tree(drafter: Drafter, where: str) -> TreeShape:
    for field, only in (("num_steps", 0), ("topk", 1), ("num_draft_tokens", 1), ("vocab", "shared")):
        value = getattr(drafter, field)
        if value not in (None, only):
            raise PoolError(
                f"{where}.{field}` is {shown(value)}, but kind `none` drafts nothing; remove it, or give {shown(only)}."
            )
    return TreeShape(0, 1, 1)


def _num_draft_tokens(drafter: Drafter, num_steps: int, topk: int, field: str) -> int:
    value = drafter.num_draft_tokens
    if drafter.vocab == "slem":
        why = ", nodes of the tree that `slem` makes of the drafted text"
        return _bounded(num_steps + 1 if value is None else value, 2, kinds.MAX_NUM_DRAFT_TOKENS, field, why)
    if topk == 1:
        if value not in (None, num_steps + 1):
            raise PoolError(
                f"{field} is {value}, but a chain (`topk` 1) of {num_steps} steps has {num_steps + 1} draft"
                " tokens; give that, or leave it out."
            )
        return num_steps + 1
    highest = min(kinds.MAX_NUM_DRAFT_TOKENS, kinds.max_tree_nodes(num_steps, topk))
    if value is None:
        raise PoolError(f"{field} is missing; a tree (`topk` {topk}) needs a whole number from 2 to {highest}.")
    return _bounded(value, 2, highest, field, f" for {num_steps} steps of topk {topk}")


def _bounded(value: int, low: int, high: int, field: str, why: str = "") -> int:
    if not low <= value <= high:
        raise PoolError(f"{field} is {shown(value)}; give a whole number from {low} to {high}{why}.")
    return value
