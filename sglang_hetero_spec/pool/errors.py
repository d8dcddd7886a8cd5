"""The one exception of this package: bad input, told in one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterable

_SHOWN_CHARS = 80


class PoolError(ValueError):
    """A pool that cannot be served; `str(error)` is one line: what is wrong, where, and what to do."""

    def __init__(self, sentence: str) -> None:
        # Names come from the disk and from the manifest: a newline in one must not split the sentence.
        super().__init__("".join(c if c.isprintable() else "?" for c in sentence))


def shown(value: object) -> str:
    """The value as a user wrote it in JSON, shortened."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."


def listed(names: Iterable[str]) -> str:
    """Names for a sentence: `a`, `b`, `c`; long lists are cut."""
    items = [f"`{name}`" for name in names]
    if len(items) > 12:
        items = [*items[:12], f"and {len(items) - 12} more"]
    return ", ".join(items) or "none"
