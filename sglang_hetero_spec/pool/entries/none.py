"""`none`: no model, nothing to draft."""

from __future__ import annotations

from sglang_hetero_spec.pool.entries.checks import Checks, Entry
from sglang_hetero_spec.pool.errors import PoolError, shown
from sglang_hetero_spec.pool.schema import Drafter
from sglang_hetero_spec.pool.tree_shape import tree_shape

FIELDS = ("num_steps", "topk", "num_draft_tokens", "vocab", "path", "weights_sha256", "tokenizer_sha256", "external")


def check(checks: Checks, drafter: Drafter, start: str) -> Entry:
    shape = tree_shape(drafter, start)
    for field in ("path", "weights_sha256", "tokenizer_sha256", "external"):
        value = getattr(drafter, field)
        if value not in (None, False):
            raise PoolError(f"{start}.{field}` is {shown(value)}, but kind `none` has no model; remove it.")
    return Entry(shape)
