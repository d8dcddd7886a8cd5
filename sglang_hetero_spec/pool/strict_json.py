"""JSON as a manifest may be written: UTF-8, one object, no key twice, no NaN."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sglang_hetero_spec.pool.errors import PoolError

MAX_MANIFEST_BYTES = 8 << 20


def read_text(path: Path, limit: int = MAX_MANIFEST_BYTES) -> str:
    """The file's text; PoolError if it is missing, not a file, too large or not UTF-8."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise PoolError(f"{path} is not a file; put the JSON file of that name there.")
        if size > limit:
            raise PoolError(f"{path} has {size} bytes, more than {limit}; it is not the file that it should be.")
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise PoolError(f"{path} is missing; check the path, or make the file again.") from None
    except UnicodeDecodeError as error:
        raise PoolError(f"{path} is not UTF-8 (byte {error.start}); save it again as UTF-8.") from None
    except OSError as error:
        raise PoolError(f"{path} cannot be read ({error.strerror}); check the path and its permissions.") from None


def parse_object(text: str, where: Path) -> dict[str, Any]:
    """Parse one JSON object; PoolError says where it breaks."""

    def no_constant(word: str) -> None:
        raise PoolError(f"{where} has the value {word}, which is not JSON; write a number.")

    def no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                raise PoolError(f"{where} has the key `{key}` twice in one object; remove one of them.")
            seen[key] = value
        return seen

    try:
        parsed = json.loads(text, object_pairs_hook=no_twice, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        raise PoolError(
            f"{where} is not complete JSON (line {error.lineno}, column {error.colno}: {error.msg.lower()});"
            " repair it, or write it again."
        ) from None
    except RecursionError:
        raise PoolError(f"{where} is nested too deeply; write it again.") from None
    except PoolError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise PoolError(f"{where} is not usable JSON ({error}); write it again.") from None
    if not isinstance(parsed, dict):
        raise PoolError(f"{where} holds {type(parsed).__name__}, not a JSON object; write it again.")
    return parsed


def read_object(path: Path, limit: int = MAX_MANIFEST_BYTES) -> dict[str, Any]:
    """`read_text`, then `parse_object`."""
    return parse_object(read_text(path, limit), path)
