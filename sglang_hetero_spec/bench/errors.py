"""What can go wrong in a benchmark, said in one sentence."""

from __future__ import annotations

from sglang_hetero_spec.errors import HeteroError


class BenchError(HeteroError):
    """A benchmark that cannot be run, or a run that cannot be read: what, where, what to do."""
