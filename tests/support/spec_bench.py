"""Spec-Bench's prompts with its six tasks: the eight categories of MT-Bench are one."""

from __future__ import annotations

import json

from tests.support.data import data_file

_OTHERS = ("translation", "summarization", "qa", "math_reasoning", "rag")


def spec_bench() -> tuple[list[str], list[str]]:
    """First turns and their tasks; skips the test where the file is not there."""
    lines = data_file("spec_bench.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    tasks = [row["category"] if row["category"] in _OTHERS else "mt_bench" for row in rows]
    return [row["turns"][0] for row in rows], tasks
