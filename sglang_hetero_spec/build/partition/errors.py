"""What partition refuses, in one sentence."""

from __future__ import annotations

from sglang_hetero_spec.errors import HeteroError


class PartitionError(HeteroError):
    """Prompts that cannot be partitioned as asked; the message is one line."""

    def __init__(self, sentence: str) -> None:
        super().__init__("".join(c if c.isprintable() else "?" for c in sentence))
