"""The entries of a manifest, one file per kind: which keys it has, and what is checked of them before any model loads.

A new kind is one file with FIELDS and `check`, and one line here.
"""

from __future__ import annotations

from types import ModuleType

from sglang_hetero_spec.pool.entries import lora, ngram, none, sorted, standalone
from sglang_hetero_spec.pool.entries.checks import Checks, Entry, refuse_other_fields
from sglang_hetero_spec.pool.schema import Drafter

ENTRIES: dict[str, ModuleType] = {
    "standalone": standalone,
    "lora": lora,
    "sorted": sorted,
    "ngram": ngram,
    "none": none,
}


def check_entry(checks: Checks, index: int, drafter: Drafter) -> Entry:
    """PoolError, in one sentence, for the first thing that is wrong with `drafters[index]`."""
    start = f"{checks.where}: `drafters[{index}]"
    kind = ENTRIES[drafter.kind]
    refuse_other_fields(drafter, start, kind.FIELDS)
    return kind.check(checks, drafter, start)
