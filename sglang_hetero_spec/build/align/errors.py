"""What stops an alignment, each in one sentence."""

from __future__ import annotations

from pathlib import Path

from sglang_hetero_spec.errors import HeteroError


class AlignError(HeteroError):
    """Input or settings that no drafter can be made from: what, where, what to do."""


class AlignStopped(AlignError):
    """The disk refused: what is finished is kept, and the same command goes on once there is room (exit code 1)."""


class DivergedError(AlignError):
    """The loss or its gradient is not finite; `checkpoint` is the last good one, if there is any."""

    def __init__(self, what: str, step: int, name: str, checkpoint: Path | None) -> None:
        self.step, self.checkpoint = step, checkpoint
        kept = f"the last good checkpoint is {checkpoint}" if checkpoint else "there is no checkpoint yet"
        super().__init__(
            f"Training of `{name}` diverged: the {what} is not finite at step {step} ({kept}); lower `learning_rate`,"
            " or train without `bf16`, and run the same command again."
        )
