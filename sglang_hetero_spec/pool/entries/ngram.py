"""`ngram`: no model; what was written before is proposed again."""

from __future__ import annotations

from sglang_hetero_spec.pool.entries.checks import TREE_FIELDS, Checks, Entry
from sglang_hetero_spec.pool.schema import Drafter
from sglang_hetero_spec.pool.tree_shape import tree_shape

FIELDS = ("path", "external", *TREE_FIELDS, "capacity")


def check(checks: Checks, drafter: Drafter, start: str) -> Entry:
    path = None if drafter.path is None else checks.folder(drafter, start, "the corpus's folder")
    return Entry(tree_shape(drafter, start), path, capacity=drafter.capacity)
