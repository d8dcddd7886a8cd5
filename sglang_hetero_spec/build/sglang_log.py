"""SGLang's request log (0.5.23, `--log-requests`): prompts from its JSON events and from its text lines.

A request is logged when it is received and again when it is finished, under one `rid`; one that came through the
OpenAI API is logged before that as it was sent, without a `rid`. It is taken once. Levels 0 and 1 leave prompts
out, level 2 shortens them to 2048 characters: only level 3 logs what can be used. Source: sglang/srt/utils/
request_logger.py.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass
from typing import Any

from sglang_hetero_spec.build.prompt_line import BadLine, messages_prompt, text_prompt
from sglang_hetero_spec.build.prompts import Prompt, Reject

RECEIVED, FINISHED, OPENAI = "request.received", "request.finished", "request.received.openai"
_LEVEL = "start the server with --log-requests-level 3"
_SHORTENED = f"the log shortened the prompt; {_LEVEL}"
_LEFT_OUT = f"the log left the prompt out; {_LEVEL}"
_ONLY_IDS = f"only token ids, no text; {_LEVEL}"
_LOGGED_CHARS = 2048

_REQUEST = re.compile(
    r"\b(?:(?P<received>Receive): obj=GenerateReqInput\(|(?P<finished>Finish): obj=GenerateReqInput\("
    r"|(?P<openai>Receive OpenAI): obj=\{)"
)
_EVENT = re.compile(r'"event": ?"request\.(?:received|finished)')
_KEY = re.compile(r"(?:(\w+)=|'(\w+)': )")


def is_event(value: dict[str, Any]) -> bool:
    """Whether a JSON object is one of SGLang's events."""
    return isinstance(value.get("event"), str) and isinstance(value.get("obj"), dict)


def is_request_line(line: str) -> bool:
    """Whether a line of a file shows that the file is a log of SGLang's."""
    return _EVENT.search(line) is not None or _REQUEST.search(line) is not None


@dataclass
class _Request:
    line: int
    raw: str
    prompts: tuple[Prompt, ...] | None
    reason: str
    came_as_ids: bool


class RequestLog:
    """The requests of a log; lines are added in their order, `finish` says which prompts they held."""

    def __init__(self) -> None:
        self._requests: dict[str, _Request] = {}
        self._has_openai = False

    def add_event(self, line: int, event: dict[str, Any], raw: str) -> None:
        """A JSON event; other events than requests are passed over."""
        kind, obj = event["event"], event["obj"]
        if kind == OPENAI:
            self._add_openai(line, obj, raw)
        elif kind in (RECEIVED, FINISHED):
            self._add(line, event.get("rid") or obj.get("rid"), obj, raw)

    def add_text(self, line: int, raw: str) -> None:
        """A line of the text format; lines that log no request are passed over."""
        match = _REQUEST.search(raw)
        if match is None:
            return
        wanted = ("messages", "prompt") if match["openai"] else ("rid", "text", "input_ids")
        obj = _fields(raw[match.end() :], wanted)
        if match["openai"]:
            self._add_openai(line, obj, raw)
        else:
            self._add(line, obj.get("rid"), obj, raw)

    def finish(self) -> tuple[list[tuple[int, Prompt]], list[Reject]]:
        """Prompts with their lines, and rejects."""
        found: list[tuple[int, Prompt]] = []
        rejects = []
        for request in self._requests.values():
            if request.came_as_ids and self._has_openai:
                continue  # what the OpenAI API made of a chat that is already there
            if request.prompts is None:
                rejects.append(Reject(request.line, request.reason, request.raw))
            else:
                found += [(request.line, prompt) for prompt in request.prompts]
        return found, rejects

    def _add_openai(self, line: int, obj: dict[str, Any], raw: str) -> None:
        self._has_openai = True
        self._requests[f"line {line}"] = _request(line, obj, raw, "prompt")

    def _add(self, line: int, rid: Any, obj: dict[str, Any], raw: str) -> None:
        key = repr(rid) if rid else f"line {line}"
        if isinstance(rid, str) and rid.startswith("HEALTH_CHECK"):
            return
        new = _request(line, obj, raw, "text")
        old = self._requests.get(key)
        if old is None:
            self._requests[key] = new
        elif old.prompts is None and new.prompts is not None:
            self._requests[key] = new
            new.came_as_ids = old.came_as_ids


def _request(line: int, obj: dict[str, Any], raw: str, field: str) -> _Request:
    came_as_ids = field == "text" and obj.get("text") is None and obj.get("input_ids") is not None
    try:
        return _Request(line, raw, _prompts(obj, field, came_as_ids), "", came_as_ids)
    except BadLine as error:
        return _Request(line, raw, None, str(error), came_as_ids)


def _prompts(obj: dict[str, Any], field: str, came_as_ids: bool) -> tuple[Prompt, ...]:
    if obj.get("messages") is not None and field == "prompt":
        _refuse_shortened(obj["messages"])
        return (messages_prompt(obj["messages"]),)
    value = obj.get(field)
    if value is None:
        raise BadLine(_ONLY_IDS if came_as_ids else _LEFT_OUT)
    texts = value if isinstance(value, list) else [value]
    _refuse_shortened(texts)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise BadLine(_ONLY_IDS)
    return tuple(text_prompt(text) for text in texts)


def _refuse_shortened(value: Any) -> None:
    """BadLine for what `_transform_data_for_logging` cut: two halves with three dots between them."""
    if isinstance(value, dict):
        for item in value.values():
            _refuse_shortened(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_shortened(item)
    elif value is _CUT or (isinstance(value, str) and _is_shortened(value)):
        raise BadLine(_SHORTENED)


def _is_shortened(text: str) -> bool:
    half = _LOGGED_CHARS // 2
    return len(text) == _LOGGED_CHARS + 3 and text[half : half + 3] == "..."


_CUT = object()


def _fields(source: str, wanted: tuple[str, ...]) -> dict[str, Any]:
    """The wanted `name=value` or `'name': value` at the start of `source`, as far as they are Python literals."""
    found: dict[str, Any] = {}
    at = 0
    while (match := _KEY.match(source, at)) and not all(name in found for name in wanted):
        name = match[1] or match[2]
        try:
            value, at = _literal(source, match.end())
        except (ValueError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError):
            break
        if source.startswith(" ... ", at):
            value = _CUT
            try:
                _, at = _literal(source, at + 5)
            except (ValueError, SyntaxError, tokenize.TokenError):
                at = len(source)
        if name in wanted:
            found[name] = value
        if not source.startswith(", ", at):
            break
        at += 2
    return found


def _literal(source: str, start: int) -> tuple[Any, int]:
    """The Python literal at `start`, and where it ends; ValueError, SyntaxError or TokenError if there is none."""
    depth = 0
    for token in tokenize.generate_tokens(io.StringIO(source[start:]).readline):
        if token.string in "([{" and token.type == tokenize.OP:
            depth += 1
        elif token.string in ")]}" and token.type == tokenize.OP:
            depth -= 1
        if depth == 0 and token.string != "-":
            row, column = token.end
            if row != 1:
                break
            return ast.literal_eval(source[start : start + column]), start + column
    raise ValueError("no literal")
