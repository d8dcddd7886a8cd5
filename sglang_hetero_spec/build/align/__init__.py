"""Align: a drafter is distilled from the target's own answers, for one task or for all of them.

`align()` does all of it; nothing here runs in a server.
"""

from sglang_hetero_spec.build.align.errors import AlignError, DivergedError
from sglang_hetero_spec.build.align.run import AlignRequest, AlignResult, align
from sglang_hetero_spec.build.align.settings import AlignSettings, load_settings

__all__ = ["AlignError", "AlignRequest", "AlignResult", "AlignSettings", "DivergedError", "align", "load_settings"]
