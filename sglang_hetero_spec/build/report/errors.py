"""What a folder can have wrong for a report."""

from __future__ import annotations

from sglang_hetero_spec.errors import HeteroError


class ReportError(HeteroError):
    """A folder that no report can be made from; `str(error)` is one sentence: what, where, what to do."""
