"""What the router reads of a prompt: its two ends, cut before anything else touches the text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

# Whitespace and control characters of ASCII.
_BLANK = bytes([*range(0x21), 0x7F])


class Excerpt(NamedTuple):
    """UTF-8 of a short prompt, whole in `head` (`tail` is None), or of the two ends of a long one.

    A cut may go through a character: the features are of bytes.
    """

    head: bytes
    tail: bytes | None = None

    @property
    def is_blank(self) -> bool:
        """Nothing that a reader would see."""
        return not self.head.lstrip(_BLANK) and not (self.tail and self.tail.lstrip(_BLANK))


def excerpt_text(text: str, head_bytes: int, tail_bytes: int) -> Excerpt:
    """The whole text if it fits the budget, else its first `head_bytes` and its last `tail_bytes`."""
    budget = head_bytes + tail_bytes
    encoded = text[: budget + 1].encode("utf-8", "surrogatepass")  # a character has at least one byte
    if len(encoded) <= budget:
        return Excerpt(encoded)
    return Excerpt(encoded[:head_bytes], text[-tail_bytes:].encode("utf-8", "surrogatepass")[-tail_bytes:])


def excerpt_ids(ids: Sequence[int], decode: Callable[[list[int]], str], head_bytes: int, tail_bytes: int) -> Excerpt:
    """The same for token ids: only ids that can lie within the budget are decoded.

    A token is taken as four bytes, which is what English text has; with a tokenizer of shorter tokens the
    excerpt is shorter than that of the text, never longer.
    """
    head_ids, tail_ids = head_bytes // 4, tail_bytes // 4
    if len(ids) <= head_ids + tail_ids:
        return excerpt_text(decode(list(ids)), head_bytes, tail_bytes)
    head, tail = _utf8(decode(list(ids[:head_ids]))), _utf8(decode(list(ids[-tail_ids:])))
    return Excerpt(head[:head_bytes], tail[-tail_bytes:])


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
