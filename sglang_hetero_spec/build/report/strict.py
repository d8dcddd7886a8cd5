"""Reading the build's JSON: one object or array, or one object a line; every fault is one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from sglang_hetero_spec.build.report.errors import ReportError
from sglang_hetero_spec.pool.errors import PoolError, shown
from sglang_hetero_spec.pool.strict_json import read_text

MAX_BYTES = 256 << 20
T = TypeVar("T")


class Strict(BaseModel):
    """A file of our own: an unknown key or another type is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Known(BaseModel):
    """A file of another step, of which the report reads these fields and leaves the others."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


def read_json(path: Path, kind: Any, again: str) -> Any:
    """The whole file as `kind`; `again` says what to do if it is not one."""
    return _validated(TypeAdapter(kind), _text(path), f"{path}:", again)


def read_jsonl(path: Path, kind: type[T], again: str) -> tuple[T, ...]:
    """Every line as `kind`."""
    adapter = TypeAdapter(kind)
    return tuple(_validated(adapter, line, f"{path}, line {number}:", again) for number, line in _lines(path))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            yield number, line


def _text(path: Path) -> str:
    try:
        return read_text(path, MAX_BYTES)
    except PoolError as error:
        raise ReportError(str(error)) from None


def _validated(adapter: TypeAdapter[T], text: str, where: str, again: str) -> T:
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        raise ReportError(_sentence(error.errors(include_url=False)[0], where, again)) from None


def _sentence(error: Any, where: str, again: str) -> str:
    field = ".".join(str(part) for part in error["loc"])
    reason = error["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    if not field:
        return f"{where} {reason}; {again}."
    if error["type"] == "missing":
        return f"{where} `{field}` is missing; {again}."
    if error["type"] == "extra_forbidden":
        return f"{where} `{field}` is not a key that this version knows; {again}."
    return f"{where} `{field}` is {shown(error['input'])} ({reason}); {again}."
