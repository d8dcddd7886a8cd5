"""`sorted`: a language model that may be left behind several of its layers (arXiv 2407.01955)."""

from __future__ import annotations

from itertools import pairwise

from sglang_hetero_spec.pool.checkpoint import check_checkpoint
from sglang_hetero_spec.pool.entries import standalone
from sglang_hetero_spec.pool.entries.checks import FILE_FIELDS, TREE_FIELDS, Checks, Entry
from sglang_hetero_spec.pool.errors import PoolError, shown
from sglang_hetero_spec.pool.schema import Drafter

FIELDS = (*FILE_FIELDS, "tokenizer_sha256", *TREE_FIELDS, "exits", "thresholds")


def check(checks: Checks, drafter: Drafter, start: str) -> Entry:
    exits = _exits(drafter, f"{start}.exits`")
    thresholds = _thresholds(drafter, len(exits), f"{start}.thresholds`")
    if drafter.topk not in (None, 1):
        raise PoolError(
            f"{start}.topk` is {drafter.topk}, but a sorted drafter drafts a chain; give 1, or leave it out."
        )
    entry = standalone.check(checks, drafter, start)
    assert entry.path is not None, "standalone has one"
    num_layers = check_checkpoint(entry.path, f"{start}.path`").get("num_hidden_layers")
    if isinstance(num_layers, int) and exits[-1] > num_layers:
        raise PoolError(
            f"{start}.exits` is {shown(list(exits))}, but the model in {entry.path} has {num_layers} layers; give no"
            " more than that."
        )
    return entry._replace(exits=exits, thresholds=thresholds)


def _exits(drafter: Drafter, field: str) -> tuple[int, ...]:
    exits, rule = drafter.exits, "give the layers behind which it may leave, ascending from 1, such as [1, 2, 4]"
    if not exits:
        raise PoolError(f"{field} is {'missing' if exits is None else 'empty'}; {rule}.")
    if exits[0] < 1 or any(after <= before for before, after in pairwise(exits)):
        raise PoolError(f"{field} is {shown(list(exits))}; {rule}.")
    return exits


def _thresholds(drafter: Drafter, num_exits: int, field: str) -> tuple[float, ...]:
    """A threshold for every exit but the last, which everything may leave at."""
    thresholds = drafter.thresholds or ()
    if len(thresholds) != num_exits - 1:
        found = "missing" if drafter.thresholds is None else shown(list(thresholds))
        raise PoolError(
            f"{field} is {found}; {num_exits} exits need {num_exits - 1} of them, each the largest probability of the"
            " next token that suffices to leave there, from 0 (always) to 1 (never)."
        )
    for threshold in thresholds:
        if not 0 <= threshold <= 1:
            raise PoolError(f"{field} is {shown(list(thresholds))}; give numbers from 0 to 1.")
    return thresholds
