"""One line of a log as prompts: plain text, or an object with `prompt`, `messages` or `turns`."""

from __future__ import annotations

from typing import Any

from sglang_hetero_spec.build.prompts import Message, Prompt, chat_prompt, plain_prompt

FIELDS = ("prompt", "messages", "turns")
_OURS = {"id", "prompt", "messages", "task", "label"}
_ROLES = ("system", "developer", "user", "assistant", "tool")


class BadLine(ValueError):
    """Why a line cannot be used, as a few words."""


def text_prompt(line: str, label: str | None = None) -> Prompt:
    """A prompt that is one text; BadLine if there is nothing in it."""
    return plain_prompt(_filled(line, "the prompt"), label)


def object_prompts(value: dict[str, Any]) -> tuple[Prompt, ...]:
    """The prompts of an object: one, or several where `prompt` is a list of texts. Other keys are ignored.

    `task` is taken as the label; in a prompts.jsonl of ours, where `task` is what was found, it is `label`.
    """
    given = [field for field in FIELDS if value.get(field) is not None]
    if len(given) != 1:
        raise BadLine(f"has {' and '.join(given) or 'none'} of {', '.join(FIELDS)}; one is needed")
    label = _label(value)
    if given == ["messages"]:
        return (messages_prompt(value["messages"], label),)
    if given == ["turns"]:
        return (turns_prompt(value["turns"], label),)
    texts = value["prompt"] if isinstance(value["prompt"], list) else [value["prompt"]]
    if not texts:
        raise BadLine("prompt is an empty list")
    return tuple(text_prompt(text, label) for text in texts)


def turns_prompt(turns: Any, label: str | None = None) -> Prompt:
    """Spec-Bench's `turns`: one turn is a plain prompt, several are a chat of user messages."""
    if not isinstance(turns, list) or not turns:
        raise BadLine("turns is not a list of texts")
    texts = [_filled(turn, f"turns[{index}]") for index, turn in enumerate(turns)]
    if len(texts) == 1:
        return plain_prompt(texts[0], label)
    return chat_prompt([Message("user", text) for text in texts], label)


def messages_prompt(messages: Any, label: str | None = None) -> Prompt:
    """A chat up to the user's last turn: what the assistant said after it is the answer, not the prompt."""
    if not isinstance(messages, list) or not messages:
        raise BadLine("messages is not a list of messages")
    found = [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]
    while found and found[-1].role == "assistant":
        found.pop()
    if not any(message.role == "user" for message in found):
        raise BadLine("messages has no turn of the user")
    return chat_prompt(found, label)


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise BadLine(f"{where} is not an object")
    role = value.get("role")
    if role not in _ROLES:
        raise BadLine(f"{where}.role is not one of {', '.join(_ROLES)}")
    content = value.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, f"{where}.content[{index}]") for index, part in enumerate(content))
    if content is None and role == "assistant":  # it called a tool
        content = ""
    if role == "user":
        return Message(role, _filled(content, f"{where}.content"))
    return Message(role, _text(content, f"{where}.content"))


def _part(value: Any, where: str) -> str:
    if not isinstance(value, dict) or value.get("type") != "text":
        raise BadLine(f"{where} is not text")
    return _text(value.get("text"), f"{where}.text")


def _label(value: dict[str, Any]) -> str | None:
    field = "label" if _OURS.issuperset(value) and {"task", "label"} <= value.keys() else "task"
    label = value.get(field)
    if label is not None and not isinstance(label, str):
        raise BadLine(f"{field} is not a text")
    return label


def _filled(value: Any, where: str) -> str:
    text = _text(value, where)
    if not text.strip():
        raise BadLine(f"{where} is empty")
    return text


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise BadLine(f"{where} is not a text")
    if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        raise BadLine(f"{where} has half a character (a lone surrogate)")
    return value
