"""answers.jsonl: one line per prompt with what the target read and wrote. Reading and writing single answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from sglang_hetero_spec.build.regenerate.errors import RegenerateError

ANSWERS_NAME = "answers.jsonl"


@dataclass(frozen=True)
class Answer:
    """The target's answer to the prompt `id`.

    `prompt_ids` are exactly what the target read, `output_ids` what it wrote (its end token included, where it ended
    by itself); `text` is `output_ids` without special tokens. `finish_reason` is SGLang's: `stop` or `length`.
    `task` is the prompt's, None for an outlier.
    """

    id: str
    prompt_ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    text: str
    finish_reason: str
    task: str | None = None


class _Line(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    id: str
    prompt_ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    text: str
    finish_reason: str
    task: str | None


def to_line(answer: Answer) -> bytes:
    """The line of answers.jsonl, its end included."""
    return json.dumps(asdict(answer), ensure_ascii=True, allow_nan=False).encode() + b"\n"


def from_line(line: bytes, where: str) -> Answer:
    """The answer on a line; RegenerateError, in one sentence with `where`, for what `to_line` would not write."""
    try:
        row = _Line.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise RegenerateError(
            f"{where} is not an answer ({field}: {first['msg'].lower()}); remove that line and run `regenerate` again."
        ) from None
    return Answer(row.id, row.prompt_ids, row.output_ids, row.text, row.finish_reason, row.task)


def read_answers(path: str | Path) -> tuple[Answer, ...]:
    """All answers of a finished answers.jsonl, in the order of its prompts; RegenerateError if it cannot be used."""
    return tuple(from_line(line, where) for line, where in _lines(Path(path)))


def _lines(path: Path) -> Iterator[tuple[bytes, str]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield line, f"{path}, line {number}"
    except OSError as error:
        raise RegenerateError(f"{path} cannot be read ({error.strerror}); run `regenerate` first.") from None
