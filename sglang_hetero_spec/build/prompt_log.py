"""A log of prompts, line by line: which format it has, which lines are prompts, which are rejected."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from sglang_hetero_spec.build.prompt_line import BadLine, object_prompts, text_prompt
from sglang_hetero_spec.build.prompts import Log, LogError, Prompt, Reject
from sglang_hetero_spec.build.sglang_log import RequestLog, is_event, is_request_line

_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
_GZIP_MAGIC = b"\x1f\x8b"
_PROBED_BYTES = 1 << 16
_PROBED_LINES = 500
# What SGLang's logger puts before every line: [2026-11-21 08:00:00]
_TIME_PREFIX = re.compile(r"\[\d{4}-\d\d-\d\d[^\]]*\] (?=\{)")


def read(path: Path) -> Log:
    """`sglang_hetero_spec.build.prompts.read_log`."""
    name = path.name.removesuffix(".gz")
    try:
        _refuse_binary(path)
        kind = _kind(path, name)
        log = _Reader(kind)
        for number, raw in _numbered_lines(path):
            log.add(number, raw)
    except OSError as error:
        reason = error.strerror or str(error)
        raise LogError(f"{path} cannot be read ({reason}); check the path and its permissions.") from None
    except (EOFError, zlib.error) as error:
        raise LogError(f"{path} is not complete gzip ({error}); compress it again.") from None
    return _checked(path, log.finish())


def _checked(path: Path, log: Log) -> Log:
    if log.prompts:
        return log
    if not log.rejects:
        raise LogError(f"{path} is empty; give a log with one prompt a line.")
    first = log.rejects[0]
    raise LogError(
        f"{path} has no line that can be used ({len(log.rejects)} rejected; line {first.line}: {first.reason});"
        ' write one prompt a line, as text or as {"prompt": ...}.',
        log.rejects,
    )


class _Reader:
    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.found: list[tuple[int, Prompt]] = []
        self.rejects: list[Reject] = []
        self.requests = RequestLog()

    def add(self, number: int, raw: bytes) -> None:
        """One line, counted from 1."""
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            shown = raw.decode("utf-8", "backslashreplace")
            self.rejects.append(Reject(number, f"not UTF-8 (byte {error.start} of the line)", shown))
            return
        if not line.strip():
            return
        try:
            self.found += [(number, prompt) for prompt in self._prompts(number, line)]
        except BadLine as error:
            self.rejects.append(Reject(number, str(error), line))

    def finish(self) -> Log:
        """Everything read, in the order of the lines."""
        found, rejects = self.requests.finish()
        in_order = sorted([*self.found, *found], key=lambda item: item[0])
        return Log(
            tuple(prompt for _, prompt in in_order),
            tuple(sorted([*self.rejects, *rejects], key=lambda item: item.line)),
        )

    def _prompts(self, number: int, line: str) -> tuple[Prompt, ...]:
        if self.kind == "text":
            return (text_prompt(line),)
        bare = _TIME_PREFIX.sub("", line, count=1)
        if self.kind == "sglang" and not bare.startswith("{"):
            self.requests.add_text(number, line)
            return ()
        value = parse_object(bare)
        if is_event(value):
            self.requests.add_event(number, value, line)
            return ()
        return object_prompts(value)


def parse_object(line: str) -> dict[str, Any]:
    """The JSON object of a line; BadLine if it is none."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadLine(f"not JSON (column {error.colno}: {error.msg.lower()})") from None
    except RecursionError:
        raise BadLine("nested too deeply") from None
    except ValueError:
        raise BadLine("a number of too many digits") from None
    if not isinstance(value, dict):
        raise BadLine(f"{_JSON_NAMES[type(value)]}, not an object")
    return value


_JSON_NAMES = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _open(path: Path) -> Any:
    with path.open("rb") as file:
        is_gzip = file.read(2) == _GZIP_MAGIC
    return gzip.open(path, "rb") if is_gzip else path.open("rb")


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with _open(path) as file:
        for number, raw in enumerate(file, start=1):
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            yield number, raw.removesuffix(b"\n").removesuffix(b"\r")


def _refuse_binary(path: Path) -> None:
    if path.is_dir():
        raise LogError(f"{path} is a folder; give one file of prompts.")
    with _open(path) as file:
        probe: bytes = file.read(_PROBED_BYTES)
    readable = len(probe.decode("utf-8", "ignore").encode())
    if b"\0" in probe or readable < 0.7 * len(probe):
        raise LogError(
            f"{path} is a binary file; give text or JSONL in UTF-8 (SGLang's .pkl dumps are never opened: let the"
            " server write --log-requests --log-requests-level 3 --log-requests-format json)."
        )


def _kind(path: Path, name: str) -> str:
    """`json`, `sglang` or `text`, by the first lines and then by the name."""
    lines = (raw.decode("utf-8", "replace").strip() for _, raw in islice(_numbered_lines(path), _PROBED_LINES))
    filled = [line for line in lines if line]
    if any(is_request_line(line) for line in filled):
        return "sglang"
    if filled and filled[0].startswith("[") and name.endswith(".json"):
        raise LogError(f"{path} is one JSON array; write one object a line instead (`jq -c '.[]'` does it).")
    return "json" if name.endswith(_JSON_SUFFIXES) or (filled and filled[0].startswith("{")) else "text"
