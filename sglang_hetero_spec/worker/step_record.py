"""What one verify step was, for the counters: made by the worker, read when SGLang has the result on the host."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepRecord:
    """One entry per request of the batch. drafters: numbers in the pool of those who drafted: none, one or two.

    num_proposed_drafts: draft tokens verified, without the root. draft_seconds: host time of each drafter's
    proposal; verify_seconds: of the rest of the step (split, merge, target forward, accept, commit). On a GPU both
    are the time to launch it.
    """

    drafters: list[tuple[int, ...]]
    num_proposed_drafts: list[int]
    draft_seconds: dict[int, float]
    verify_seconds: float
