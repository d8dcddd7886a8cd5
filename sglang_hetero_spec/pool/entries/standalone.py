"""`standalone`: a whole language model, of the target's vocabulary or another."""

from __future__ import annotations

from sglang_hetero_spec.pool.checkpoint import check_checkpoint, check_weights_hash
from sglang_hetero_spec.pool.entries.checks import FILE_FIELDS, TREE_FIELDS, Checks, Entry
from sglang_hetero_spec.pool.errors import PoolError
from sglang_hetero_spec.pool.schema import Drafter
from sglang_hetero_spec.pool.tokenizer_check import check_tokenizer
from sglang_hetero_spec.pool.tree_shape import tree_shape

FIELDS = (*FILE_FIELDS, "tokenizer_sha256", "vocab", *TREE_FIELDS)


def check(checks: Checks, drafter: Drafter, start: str) -> Entry:
    shape = tree_shape(drafter, start)
    folder = checks.folder(drafter, start, "the draft model's folder")
    config = check_checkpoint(folder, f"{start}.path`")
    check_weights_hash(folder, drafter.weights_sha256, start)
    check_tokenizer(folder, config, drafter, start, checks.tokenizer)
    mode = checks.modes.of(drafter.vocab, folder, config, f"{start}.vocab`")
    if mode.vocab == "tli" and mode.overlap is not None and mode.overlap.num_shared < shape.topk:
        raise PoolError(
            f"{start}.topk` is {shape.topk}, but the drafter shares only {mode.overlap.num_shared} tokens with the"
            " target; give no more than that."
        )
    return Entry(shape, folder, mode)
