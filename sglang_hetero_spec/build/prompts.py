"""The prompts of a build: what one is, the log it comes from, and partition's prompts.jsonl.

A log (`read_log`) is what a user has and is read line by line: a bad line is a reject, the rest goes on.
prompts.jsonl (`read_prompts`) is ours: one bad line refuses the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_hetero_spec import files
from sglang_hetero_spec.errors import HeteroError

PROMPTS_NAME = "prompts.jsonl"
REJECTS_NAME = "rejects.jsonl"


@dataclass(frozen=True)
class Message:
    """One turn of a chat; `role` is `system`, `developer`, `user`, `assistant` or `tool`."""

    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """One prompt of a log.

    `text` is what clustering and router see: the plain prompt, or the user's turns joined by a blank line.
    `messages` is set where the log had messages or several turns; the target then sees a chat.
    `id` is a function of the content: the first 16 hex digits of its SHA-256. `label` is the log's own `task`
    field, used only to judge; `task` is what partition found, None for an outlier or before partition.
    """

    id: str
    text: str
    messages: tuple[Message, ...] | None = None
    label: str | None = None
    task: str | None = None


@dataclass(frozen=True)
class Reject:
    """A line (counted from 1) that holds no prompt that can be used, and why."""

    line: int
    reason: str
    raw: str


@dataclass(frozen=True)
class Log:
    """The prompts in the order of the log, repeated ones included, and the lines that were rejected."""

    prompts: tuple[Prompt, ...]
    rejects: tuple[Reject, ...]


class LogError(HeteroError):
    """A log, or a file of prompts, that cannot be used; `rejects` are the bad lines seen so far."""

    def __init__(self, sentence: str, rejects: Sequence[Reject] = ()) -> None:
        super().__init__("".join(c if c.isprintable() else "?" for c in sentence))
        self.rejects = tuple(rejects)


def plain_prompt(text: str, label: str | None = None, task: str | None = None) -> Prompt:
    """A prompt that is one text."""
    return Prompt(_digest({"prompt": text}), text, None, label, task)


def chat_prompt(messages: Sequence[Message], label: str | None = None, task: str | None = None) -> Prompt:
    """A prompt that is a chat; its text is that of the user's turns."""
    content = {"messages": [_message_dict(message) for message in messages]}
    text = "\n\n".join(message.content for message in messages if message.role == "user")
    return Prompt(_digest(content), text, tuple(messages), label, task)


def read_log(path: str | Path) -> Log:
    """Read a log of prompts: JSONL with `prompt`, `messages` or `turns`, SGLang's request log, or plain text.

    Gzip is seen by its first bytes. A `task` (a string) beside the prompt becomes the `label`. LogError, in one
    sentence, for a file that cannot be read, is binary or empty, or has not one usable line.
    """
    from sglang_hetero_spec.build.prompt_log import read

    return read(Path(path))


def write_prompts(path: str | Path, prompts: Iterable[Prompt]) -> None:
    """Write prompts.jsonl: one object a line with id, prompt or messages, task and label."""
    write_lines(path, (_as_dict(prompt) for prompt in prompts))


def read_prompts(path: str | Path) -> tuple[Prompt, ...]:
    """Read prompts.jsonl; LogError at the first line that `write_prompts` would not have written."""
    from sglang_hetero_spec.build.prompt_file import read

    return read(Path(path))


def write_rejects(path: str | Path, rejects: Iterable[Reject]) -> None:
    """Write the rejected lines, one object a line with line, reason and raw."""
    write_lines(path, ({"line": item.line, "reason": item.reason, "raw": item.raw} for item in rejects))


def write_lines(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSONL whole or not at all."""
    lines = (json.dumps(row, ensure_ascii=True, allow_nan=False) for row in rows)
    files.write_lines(Path(path), lines, LogError)


def _as_dict(prompt: Prompt) -> dict[str, Any]:
    row: dict[str, Any] = {"id": prompt.id}
    if prompt.messages is None:
        row["prompt"] = prompt.text
    else:
        row["messages"] = [_message_dict(message) for message in prompt.messages]
    return row | {"task": prompt.task, "label": prompt.label}


def _message_dict(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _digest(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
