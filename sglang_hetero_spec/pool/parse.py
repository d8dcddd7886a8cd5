"""Text of pool.json -> Manifest; what is wrong is told in one sentence, not in pydantic's words."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from sglang_hetero_spec.pool import kinds, schema
from sglang_hetero_spec.pool.errors import PoolError, listed, shown
from sglang_hetero_spec.pool.schema import Manifest
from sglang_hetero_spec.pool.strict_json import parse_object

_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
_NAME_RULE = "1 to 64 letters, digits, dots, dashes or underscores, the first a letter or digit"
_SHA_RULE = "64 lower-case hexadecimal digits"


def parse_manifest(text: str, where: Path) -> Manifest:
    """The manifest in `text`; `where` names the file in errors. Looks at nothing else on disk."""
    raw = parse_object(text, where)
    _check_version(raw, where)
    _check_kinds(raw, where)
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise PoolError(_sentence(error.errors(include_url=False)[0], where)) from None


def _check_version(raw: dict[str, Any], where: Path) -> None:
    """First of all: a newer manifest may have keys and words that the other checks would call wrong."""
    found = raw.get("format")
    if found != schema.FORMAT:
        raise PoolError(f"{where}: `format` is {shown(found)}, not {shown(schema.FORMAT)}; is this a pool's manifest?")
    version = raw.get("schema_version")
    if type(version) is not int or version < 1:
        raise PoolError(
            f"{where}: `schema_version` is {shown(version)}; write {schema.SCHEMA_VERSION}, a whole number."
        )
    if version > schema.SCHEMA_VERSION:
        raise PoolError(
            f"{where}: `schema_version` is {version}, newer than {schema.SCHEMA_VERSION}, the newest that"
            " this version reads; upgrade sglang-hetero-spec, or make the pool again with this version."
        )


def _check_kinds(raw: dict[str, Any], where: Path) -> None:
    """Before keys: a kind of a later version brings keys of its own."""
    drafters = raw.get("drafters")
    for index, drafter in enumerate(drafters if isinstance(drafters, list) else ()):
        if not isinstance(drafter, dict):
            continue
        _check_word(drafter, "kind", index, kinds.KNOWN_KINDS, kinds.LATER_KINDS, where)
        _check_word(drafter, "vocab", index, kinds.KNOWN_VOCABS, (), where)


def _check_word(
    drafter: dict[str, Any], key: str, index: int, known: tuple[str, ...], later: tuple[str, ...], where: Path
) -> None:
    word = drafter.get(key)
    field = f"{where}: `drafters[{index}].{key}` is {shown(word)}"
    if word in later:
        raise PoolError(f"{field}, which is not supported by this version; use one of {listed(known)}.")
    if isinstance(word, str) and word not in known:
        raise PoolError(f"{field}, which is unknown; use one of {listed(known)}.")


def _sentence(error: dict[str, Any], where: Path) -> str:
    field, kind, value = dotted(error["loc"]), error["type"], error["input"]
    start = f"{where}: `{field}`"
    if kind == "missing":
        return f"{start} is missing; add it."
    if kind == "extra_forbidden":
        return f"{start} is not a key that this version knows; {_spelling(error['loc'])}."
    if kind == "string_pattern_mismatch":
        return f"{start} is {shown(value)}; give {_SHA_RULE if field.endswith('sha256') else _NAME_RULE}."
    if kind == "too_short":
        return f"{start} is empty; list at least one drafter."
    if kind in ("greater_than_equal", "less_than_equal", "finite_number"):
        return f"{start} is {shown(value)}; give a number from 0 to 1."
    expected = _TYPES.get(kind)
    return f"{start} is {shown(value)}; give {expected}." if expected else f"{start} is {shown(value)}: {error['msg']}."


def dotted(location: tuple[int | str, ...]) -> str:
    """("drafters", 1, "topk") -> "drafters[1].topk"."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _spelling(location: tuple[int | str, ...]) -> str:
    model: type[BaseModel] | None = Manifest
    for part in location[:-1]:
        if isinstance(part, str):
            model = _nested(model, part)
    known = list(model.model_fields) if model else []
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"did you mean `{close[0]}`" if close else f"remove it (known here: {listed(known)})"


def _nested(model: type[BaseModel] | None, field: str) -> type[BaseModel] | None:
    """The model inside `field`: itself, or the one in its tuple or union."""
    if model is None or field not in model.model_fields:
        return None
    todo: list[Any] = [model.model_fields[field].annotation]
    while todo:
        annotation = todo.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
        todo.extend(get_args(annotation))
    return None
