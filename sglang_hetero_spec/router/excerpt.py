"""What the router reads of a prompt: its head and its tail, cut before anything else touches the text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Anything but whitespace and the two blocks of control characters.
_VISIBLE = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Excerpt:
    """A short prompt whole in `head` (`tail` is None), or the two ends of a long one."""

    head: str
    tail: str | None = None

    @property
    def is_blank(self) -> bool:
        """Nothing that a reader would see."""
        return not (_VISIBLE.search(self.head) or (self.tail and _VISIBLE.search(self.tail)))


def excerpt_text(text: str, head_chars: int, tail_chars: int) -> Excerpt:
    """The whole text if it fits the budget, else its first `head_chars` and last `tail_chars` characters."""
    if len(text) <= head_chars + tail_chars:
        return Excerpt(text)
    return Excerpt(text[:head_chars], text[-tail_chars:])


def excerpt_ids(ids: Sequence[int], decode: Callable[[list[int]], str], head_chars: int, tail_chars: int) -> Excerpt:
    """The same for token ids: only ids that can lie within the budget are decoded.

    A token is taken as four characters, which is what English text has; with a tokenizer of shorter tokens
    the excerpt is shorter than that of the text, never longer.
    """
    head_ids, tail_ids = max(1, head_chars // 4), max(1, tail_chars // 4)
    if len(ids) <= head_ids + tail_ids:
        return excerpt_text(decode(list(ids)), head_chars, tail_chars)
    head, tail = decode(list(ids[:head_ids])), decode(list(ids[-tail_ids:]))
    return Excerpt(head[:head_chars], tail[-tail_chars:])
