"""What greedy chain speculation would accept, counted on the target's own answers without an engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sglang_hetero_spec.build.align.answers import Row, by_task
from sglang_hetero_spec.build.align.batches import AnswerHead, as_tensors, bucketed

OUTLIERS = "outliers"


@dataclass(frozen=True)
class Counts:
    """Sums over requests, so that ratios are taken last.

    correct_by_position[i]: verify steps whose first i + 1 drafts were all right. completion_tokens: of the answers,
    the first one, which comes from the prefill, included.
    """

    requests: int
    verify_steps: int
    proposed_drafts: int
    correct_by_position: tuple[int, ...]
    completion_tokens: int

    @property
    def accept_rate(self) -> float:
        return sum(self.correct_by_position) / max(1, self.proposed_drafts)

    @property
    def accept_length(self) -> float:
        return self.completion_tokens / max(1, self.verify_steps)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"correct_by_position": list(self.correct_by_position)}

    def numbers(self) -> list[int]:
        """All sums in one list; `of_numbers` reads it."""
        head = [self.requests, self.verify_steps, self.proposed_drafts, self.completion_tokens]
        return [*head, *self.correct_by_position]

    @classmethod
    def of_numbers(cls, numbers: Sequence[int]) -> Counts:
        requests, steps, proposed, tokens, *correct = map(int, numbers)
        return cls(requests, steps, proposed, tuple(correct), tokens)


def count(hits: Sequence[Sequence[bool]], num_steps: int) -> Counts:
    """From hits[request][j], whether the drafter's first choice for answer token j is the target's.

    Along the target's own answer a drafter's chain equals the teacher-forced first choices up to the first miss.
    """
    steps = tokens = 0
    correct = [0] * num_steps
    for hit in hits:
        tokens, at = tokens + len(hit), 1  # token 0 comes from the prefill
        while at < len(hit):
            run = 0
            while run < num_steps and at + run < len(hit) and hit[at + run]:
                correct[run] += 1
                run += 1
            steps += 1
            at += run + 1
    return Counts(len(hits), steps, steps * num_steps, tuple(correct), tokens)


@torch.inference_mode()
def first_choices(model: Any, head: AnswerHead, rows: Sequence[Row], batch_tokens: int) -> list[list[list[bool]]]:
    """At each exit, for each row, for each token that is predicted: is it the model's first choice?"""
    found: list[list[list[bool]]] = [[[] for _ in rows] for _ in range(head.num_exits)]
    device = next(model.parameters()).device
    for batch in bucketed(rows, batch_tokens):
        tensors = {name: value.to(device) for name, value in as_tensors([rows[i] for i in batch]).items()}
        logits = head.logits(model, tensors["input_ids"], tensors["keep"])
        hits = logits.argmax(-1).view(head.num_exits, -1) == tensors["tokens"]
        sizes = [len(rows[i].scored[1]) for i in batch]
        for exit, at_exit in enumerate(hits):
            for index, hit in zip(batch, at_exit.split(sizes), strict=True):
                found[exit][index] = hit.tolist()
    return found


def measure(model: Any, head: AnswerHead, rows: Sequence[Row], num_steps: int, batch_tokens: int) -> Counts:
    """Counts of `model` (left in its mode) on `rows`; the sum over its exits where it has several."""
    was_training = model.training
    model.eval()
    hits = first_choices(model, head, rows, batch_tokens)
    model.train(was_training)
    return total([count(at_exit, num_steps) for at_exit in hits])


def measure_by_task(
    model: Any, head: AnswerHead, rows: Sequence[Row], num_steps: int, batch_tokens: int
) -> list[dict[str, Counts]]:
    """At each exit, counts for each task in `rows`; those without a task are under `outliers`."""
    found: list[dict[str, Counts]] = [{} for _ in range(head.num_exits)]
    for task, mine in by_task(rows).items():
        for exit, hits in enumerate(first_choices(model, head, mine, batch_tokens)):
            found[exit][OUTLIERS if task is None else task] = count(hits, num_steps)
    return found


def total(counts: Iterable[Counts]) -> Counts:
    """Their sum."""
    columns = zip(*(found.numbers() for found in counts), strict=True)
    return Counts.of_numbers([sum(column) for column in columns])


def as_row(counts: Counts) -> Tensor:
    """The sums as a tensor, to be added up over processes."""
    return torch.tensor(counts.numbers(), dtype=torch.long)
