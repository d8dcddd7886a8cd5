"""prompts.jsonl as written by partition: strict, every line or none."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sglang_hetero_spec.build.prompts import LogError, Message, Prompt, chat_prompt, plain_prompt


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Message(_Strict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str


class _Line(_Strict):
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    prompt: str | None = None
    messages: Annotated[tuple[_Message, ...], Field(min_length=1)] | None = None
    task: str | None
    label: str | None


def read(path: Path) -> tuple[Prompt, ...]:
    """The prompts of the file; LogError in one sentence that names the line."""
    found: dict[str, Prompt] = {}
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}, line {number}"
        prompt = _prompt(line, where)
        if prompt.id in found:
            raise LogError(f"{where} repeats the prompt `{prompt.id}`; run `partition` again.")
        found[prompt.id] = prompt
    if not found:
        raise LogError(f"{path} holds no prompt; run `partition` again.")
    return tuple(found.values())


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise LogError(f"{path} cannot be read ({error.strerror}); give the folder that `partition` wrote.") from None
    except UnicodeDecodeError as error:
        raise LogError(f"{path} is not UTF-8 (byte {error.start}); run `partition` again.") from None
    return text.removesuffix("\n").split("\n") if text else []


def _prompt(line: str, where: str) -> Prompt:
    try:
        row = _Line.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise LogError(f"{where}: {field}: {first['msg'].lower()}; run `partition` again.") from None
    if (row.prompt is None) == (row.messages is None):
        raise LogError(f"{where} needs `prompt` or `messages`, one of them; run `partition` again.")
    if row.prompt is not None:
        prompt = plain_prompt(row.prompt, row.label, row.task)
    else:
        messages = [Message(message.role, message.content) for message in row.messages or ()]
        prompt = chat_prompt(messages, row.label, row.task)
    if prompt.id != row.id:
        raise LogError(
            f"{where}: the id `{row.id}` is not that of its content (`{prompt.id}`); do not edit the file, run"
            " `partition` on a corrected log."
        )
    return prompt
