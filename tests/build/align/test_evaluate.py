"""The counts against speculation itself: a drafter's greedy chains, verified token by token."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from sglang_hetero_spec.build.align.answers import Row, read_answers
from sglang_hetero_spec.build.align.batches import AnswerHead
from sglang_hetero_spec.build.align.evaluate import Counts, count, measure, measure_by_task, total

STEPS = 3


@torch.no_grad()
def speculate(drafter: LlamaForCausalLM, row: Row) -> Counts:
    done, steps, correct = 1, 0, [0] * STEPS
    while done < len(row.answer):
        context = [*row.prompt, *row.answer[:done]]
        drafts: list[int] = []
        for _ in range(STEPS):
            drafts.append(int(drafter(torch.tensor([context + drafts])).logits[0, -1].argmax()))
        run = 0
        while run < STEPS and done + run < len(row.answer) and drafts[run] == row.answer[done + run]:
            correct[run] += 1
            run += 1
        steps, done = steps + 1, done + run + 1
    return Counts(1, steps, steps * STEPS, tuple(correct), len(row.answer))


def test_counts_are_those_of_speculation(shop: Path) -> None:
    drafter = LlamaForCausalLM.from_pretrained(shop / "base").eval()
    rows = read_answers(shop / "answers.jsonl")[::6]
    found = measure(drafter, AnswerHead(drafter), rows, STEPS, 64)
    assert found == total([speculate(drafter, row) for row in rows])
    assert 0 < found.accept_rate < 1
    (by_task,) = measure_by_task(drafter, AnswerHead(drafter), rows, STEPS, 64)
    assert set(by_task) == {"digits", "letters"}
    assert total(by_task.values()) == found


def test_the_first_token_is_the_prefills() -> None:
    assert count([[False]], 4) == Counts(1, 0, 0, (0, 0, 0, 0), 1)
    assert count([[False, True, True, True, True, True]], 4) == Counts(1, 1, 4, (1, 1, 1, 1), 6)
    assert count([[True, False, True]], 2) == Counts(1, 2, 4, (1, 0), 3)


def test_numbers_hold_all_sums() -> None:
    counts = Counts(1, 2, 4, (1, 0), 3)
    assert Counts.of_numbers(counts.numbers()) == counts
