"""Sends prompts to a server, so many at a time, and keeps what came back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sglang_hetero_spec.demo.arms import Arm
from sglang_hetero_spec.demo.shipped import Prompt
from sglang_hetero_spec.serving.client import Timed, generate_all
from sglang_hetero_spec.serving.server import Server


@dataclass(frozen=True)
class Answer:
    """One request. prompt: its number; seconds: from sending it to the whole answer, as the client sees it.

    verify_steps, proposed, correct: SGLang's spec_verify_ct, spec_num_proposed_drafts and spec_num_correct_drafts,
    all 0 without speculation. drafter, confidence, source: of meta_info["hetero"], None without HETERO.
    """

    prompt: int
    task: str
    text: str
    output_ids: tuple[int, ...]
    prompt_tokens: int
    seconds: float
    verify_steps: int = 0
    proposed: int = 0
    correct: int = 0
    drafter: str | None = None
    confidence: float | None = None
    source: str | None = None
    finished: bool = False

    @property
    def completion_tokens(self) -> int:
        return len(self.output_ids)


@dataclass(frozen=True)
class Pass:
    """All prompts once through one arm. wall_seconds: from the first request's start to the last one's end."""

    arm: str
    concurrency: int
    wall_seconds: float
    answers: tuple[Answer, ...]


def run_pass(
    server: Server,
    arm: Arm,
    prompts: Sequence[Prompt],
    *,
    concurrency: int,
    tokens: int,
    on_answer: Callable[[Answer], None],
) -> Pass:
    """Every prompt once, greedily, `concurrency` at a time, in order. ServingError if a request fails."""
    bodies = [payload(prompt, arm, tokens) for prompt in prompts]
    answers, wall = generate_all(
        server,
        bodies,
        concurrency=concurrency,
        on_answer=lambda timed: on_answer(_answer(timed, prompts[timed.number].task)),
    )
    return Pass(arm.name, concurrency, wall, tuple(_answer(timed, prompts[timed.number].task) for timed in answers))


def payload(prompt: Prompt, arm: Arm, tokens: int) -> dict[str, Any]:
    params: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": tokens}
    custom = arm.custom_params(prompt)
    if custom is not None:
        params["custom_params"] = custom
    return {"text": prompt.text, "sampling_params": params}


def _answer(timed: Timed, task: str) -> Answer:
    answer, meta = timed.answer, timed.answer["meta_info"]
    route = meta.get("hetero") or {}
    return Answer(
        prompt=timed.number,
        task=task,
        text=answer["text"],
        output_ids=tuple(answer["output_ids"]),
        prompt_tokens=meta["prompt_tokens"],
        seconds=timed.seconds,
        verify_steps=meta.get("spec_verify_ct") or 0,
        proposed=meta.get("spec_num_proposed_drafts") or 0,
        correct=meta.get("spec_num_correct_drafts") or 0,
        drafter=route.get("drafter"),
        confidence=route.get("confidence"),
        source=route.get("source"),
        finished=meta["finish_reason"]["type"] == "stop",
    )
