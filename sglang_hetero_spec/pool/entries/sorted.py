"""`sorted`: a language model that may leave behind several of its layers (arXiv 2407.01955)."""

from __future__ import annotations

from sglang_hetero_spec.pool.entries import standalone
from sglang_hetero_spec.pool.entries.checks import FILE_FIELDS, TREE_FIELDS, Checks, Entry
from sglang_hetero_spec.pool.schema import Drafter

FIELDS = (*FILE_FIELDS, "tokenizer_sha256", *TREE_FIELDS, "exits", "thresholds")


def check(checks: Checks, drafter: Drafter, start: str) -> Entry:
    entry = standalone.check(checks, drafter, start)
    return entry._replace(exits=drafter.exits or (), thresholds=drafter.thresholds or ())
