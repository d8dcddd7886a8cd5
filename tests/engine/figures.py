"""What an answer's meta_info says of speculation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.engine.cases import Case


def accept_length(answers: Sequence[dict]) -> float:
    """Tokens per verify step; the first token of each answer comes from its prefill."""
    tokens = sum(answer["meta_info"]["completion_tokens"] - 1 for answer in answers)
    return tokens / sum(answer["meta_info"]["spec_verify_ct"] for answer in answers)


def num_drafted(answers: Sequence[dict]) -> int:
    """Draft tokens that were verified."""
    return sum(answer["meta_info"].get("spec_num_proposed_drafts", 0) for answer in answers)


def served_by(drafter: str, cases: Sequence[Case], answers: Sequence[dict]) -> list[dict]:
    return [answer for case, answer in zip(cases, answers, strict=True) if case.drafter == drafter]


def assert_accepts_everything(answers: Sequence[dict], num_steps: int) -> None:
    """All but the last step of an answer commit num_steps + 1 tokens; the first token comes from the prefill."""
    for answer in answers:
        meta = answer["meta_info"]
        assert meta["spec_verify_ct"] == math.ceil((meta["completion_tokens"] - 1) / (num_steps + 1)), meta
