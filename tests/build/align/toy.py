"""A tiny target, its greedy answers, and a drafter that is the target with noise: all in a second."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from sglang_hetero_spec.build.align import AlignRequest, AlignSettings
from sglang_hetero_spec.build.align.answers import Row
from sglang_hetero_spec.build.regenerate.answers import Answer, to_line
from tests.support.tiny_models import TinyShape, write_noisy_copy, write_tiny_model

SHAPE = TinyShape(hidden=32, layers=3, heads=2, kv_heads=1, max_len=128)
TASKS = ("digits", "letters")
QUICK = {
    "epochs": 6.0, "batch_tokens": 256, "optimizer": "adamw", "learning_rate": 1e-3, "heldout_share": 0.25,
    "evaluations": 4, "bf16": False, "patience": 0,
}  # fmt: skip


def write_target(path: Path) -> Path:
    return write_tiny_model(path, seed=3, shape=SHAPE, spread=0.12)


def write_base(target: Path, path: Path, noise: float = 0.2) -> Path:
    return write_noisy_copy(target, path, seed=5, noise=noise)


@torch.no_grad()
def answers(target: Path, per_task: int, most: int = 16) -> list[Row]:
    """The target's greedy answers to prompts of its tasks, of different lengths."""
    model, rng = LlamaForCausalLM.from_pretrained(target).eval(), random.Random(1)
    rows = []
    for place, task in enumerate(TASKS):
        width = 5 + 2 * place
        words = range(20 + 60 * place, 60 + 60 * place)
        ids = torch.tensor([rng.choices(words, k=width) for _ in range(per_task)])
        for _ in range(most):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
        for number, row in enumerate(ids.tolist()):
            end = width + most - number % 5
            rows.append(Row(f"{task}-{number}", task, tuple(row[:width]), tuple(row[width:end]), "", "length"))
    return rows


def write_answers(path: Path, rows: Sequence[Row]) -> Path:
    said = (Answer(row.id, row.prompt, row.answer, row.text, row.finish_reason or "length", row.task) for row in rows)
    path.write_bytes(b"".join(map(to_line, said)))
    return path


def settings(**changes: object) -> AlignSettings:
    return AlignSettings.model_validate({**QUICK, **changes})


def request(folder: Path, out: Path, task: str | None = TASKS[0], **changes: object) -> AlignRequest:
    """On the files that the `shop` fixture wrote to `folder`."""
    use_base = changes.pop("use_base", True)
    return AlignRequest(
        target=str(folder / "target"), answers=folder / "answers.jsonl", out=out, task=task,
        base=str(folder / "base") if use_base else None, settings=settings(**changes),
    )  # fmt: skip
