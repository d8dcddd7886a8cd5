"""What one verify step was, for the counters: made by the worker, read when SGLang has the result on the host."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepSeconds:
    """Host seconds of one step. On a GPU forwards are launched, not waited for, and all of these are times to launch.

    step: all of it. draft: of each drafter's proposal, by its number; draft_forward: of these, inside draft models
    (weights, attention, and for it the gathering of keys and values). target: inside the target's forward
    (TpModelWorker.forward_batch_generation: attention's plan, layers, logits).
    """

    step: float
    draft: dict[int, float]
    draft_forward: dict[int, float]
    target: float

    @property
    def verify(self) -> float:
        """Of all that is not proposing."""
        return self.step - sum(self.draft.values())

    @property
    def host(self) -> float:
        """Of all that is neither proposing nor the target's forward: split, merge, mask, the slots and the ForwardBatch
        that SGLang makes for verification, grammar masks, accepting, sampling, moving accepted KV, commit."""
        return self.verify - self.target


@dataclass(frozen=True)
class StepRecord:
    """drafters: of each request of the batch the numbers in the pool of those who drafted: none, one or two."""

    drafters: list[tuple[int, ...]]
    seconds: StepSeconds
