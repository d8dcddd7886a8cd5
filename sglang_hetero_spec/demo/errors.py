"""What can go wrong while the demo runs, said in one sentence."""

from __future__ import annotations

from sglang_hetero_spec.serving.errors import ServingError


class DemoError(ServingError):
    """The demo cannot go on (exit code 1). The message says what happened and what to do."""
