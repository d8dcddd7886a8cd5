"""Raw results written down by hand, with figures that can be worked out on paper."""

from __future__ import annotations

from sglang_hetero_spec.demo.client import Answer, Pass


def answer(prompt: int, task: str, ids: tuple[int, ...], seconds: float, **fields: object) -> Answer:
    given = {"text": f"answer {prompt}", "prompt_tokens": 10, "finished": True, **fields}
    return Answer(prompt=prompt, task=task, output_ids=ids, seconds=seconds, **given)  # type: ignore[arg-type]


SQL, CODE = tuple(range(8)), tuple(range(100, 112))


def none_pass(wall: float) -> Pass:
    return Pass("none", 4, wall, (answer(0, "sql", SQL, 2.0), answer(1, "code", CODE, 3.0)))


def standalone_pass(wall: float) -> Pass:
    rows = (
        answer(0, "sql", SQL, 1.0, verify_steps=4, proposed=16, correct=4),
        answer(1, "code", CODE, 2.0, verify_steps=6, proposed=24, correct=6),
    )
    return Pass("standalone", 4, wall, rows)


def hetero_pass(wall: float, code: tuple[int, ...] = CODE) -> Pass:
    tags = {"source": "router", "confidence": 0.9}
    rows = (
        answer(0, "sql", SQL, 0.5, verify_steps=2, proposed=8, correct=6, drafter="sql", **tags),
        answer(1, "code", code, 1.5, verify_steps=4, proposed=16, correct=8, drafter="general", **tags),
    )
    return Pass("hetero", 4, wall, rows)


def passes() -> list[Pass]:
    """20 tokens a pass: none in 4 and 6 s, STANDALONE in 2 and 3 s, HETERO in 1 and 3 s."""
    return [
        none_pass(4.0), standalone_pass(2.0), hetero_pass(1.0),
        hetero_pass(3.0), standalone_pass(3.0), none_pass(6.0),
    ]  # fmt: skip
