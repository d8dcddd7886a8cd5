"""What greedy chain speculation would accept, counted on the target's greedy answers without an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sglang_hetero_spec.demo.train.batches import pad
from sglang_hetero_spec.demo.train.generate import Answered
from sglang_hetero_spec.demo.train.model import TinyLlama


@dataclass(frozen=True)
class Counts:
    """Sums over requests, so that ratios are taken last. `tokens` leaves out each answer's first (from the prefill)."""

    steps: int
    proposed: int
    correct: int
    tokens: int

    @property
    def accept_rate(self) -> float:
        return self.correct / max(1, self.proposed)

    @property
    def accept_length(self) -> float:
        return self.tokens / max(1, self.steps)


@torch.inference_mode()
def measure(drafter: TinyLlama, items: Sequence[Answered], num_steps: int, batch: int = 64) -> Counts:
    """Along the target's own answer a drafter's proposals equal the teacher-forced argmax up to the first miss."""
    steps = correct = tokens = 0
    for start in range(0, len(items), batch):
        chunk = items[start : start + batch]
        ids, predicts = pad([item.row for item in chunk])
        hits = drafter.logits(drafter.hidden(ids)).argmax(-1)[:, :-1] == ids[:, 1:]
        for row, where in zip(hits, predicts, strict=True):
            # hit[j]: the drafter gets answer token j; token 0 comes from the target's prefill.
            hit, at = row[where[:-1]].tolist(), 1
            while at < len(hit):
                run = 0
                while run < num_steps and at + run < len(hit) and hit[at + run]:
                    run += 1
                steps, correct = steps + 1, correct + run
                tokens += min(run + 1, len(hit) - at)
                at += run + 1
    return Counts(steps, steps * num_steps, correct, tokens)
