"""The target's answers in the ids of a drafter with another vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sglang_hetero_spec.build.align.answers import Row


def retokenize(rows: Iterable[Row], target: str, drafter: str) -> tuple[Row, ...]:
    """Prompts and answers decoded by the target's tokenizer and encoded by the drafter's.

    Special tokens of the target are dropped; the drafter's own start a prompt, and its eos ends an answer that ended
    by itself. Rows without any token left are left out.
    """
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(target), AutoTokenizer.from_pretrained(drafter)
    found = (_row(row, theirs, ours) for row in rows)
    return tuple(row for row in found if row.prompt and row.answer)


def _row(row: Row, theirs: Any, ours: Any) -> Row:
    prompt = ours(theirs.decode(row.prompt, skip_special_tokens=True))["input_ids"]
    answer = ours(theirs.decode(row.answer, skip_special_tokens=True), add_special_tokens=False)["input_ids"]
    if row.finish_reason == "stop" and ours.eos_token_id is not None:
        answer = [*answer, ours.eos_token_id]
    return replace(row, prompt=tuple(prompt), answer=tuple(answer))
