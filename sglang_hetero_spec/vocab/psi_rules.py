"""Which target token a text begins with, as soon as that can be said (SLRS, arXiv 2502.05202, section 3.2).

A rule looks at a beginning of a text. It answers UNDECIDED only while more text could change the answer, and never
when the text has ended. The law of SLRS's output is the target's for any rule; a rule that tokenises as the target
writes is accepted more often.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from sglang_hetero_spec.vocab.boundary import Boundaries

UNMAPPED = -1
UNDECIDED = -2


class FirstToken(Protocol):
    """text, whether it has ended -> target id, UNMAPPED where the text begins with no token, or UNDECIDED."""

    def __call__(self, text: bytes, ended: bool) -> int: ...


class LongestMatch:
    """The longest token that the text begins with: decided when no token goes on from the whole text."""

    def __init__(self, tokens: Mapping[bytes, int]) -> None:
        self._tokens = {piece: token_id for piece, token_id in tokens.items() if piece}
        self._longest = max(map(len, self._tokens), default=0)
        self.proper_prefixes = proper_prefixes(self._tokens)

    def __call__(self, text: bytes, ended: bool) -> int:
        if not ended and text in self.proper_prefixes:
            return UNDECIDED
        for size in range(min(len(text), self._longest), 0, -1):
            if text[:size] in self._tokens:
                return self._tokens[text[:size]]
        return UNMAPPED


class OwnTokenisation:
    """The first token of what the target's tokenizer makes of the text.

    Decided when the text has a place that no token crosses (then what follows cannot matter), has ended, or has
    `max_bytes` bytes, at which it is taken as it stands.
    """

    def __init__(self, target: Boundaries, max_bytes: int) -> None:
        self._target = target
        self._max_bytes = max_bytes

    def __call__(self, text: bytes, ended: bool) -> int:
        if not ended and len(text) < self._max_bytes and not self._target.has_free_cut(text):
            return UNDECIDED
        ids = self._target.side.spell(text)
        return ids[0] if ids else UNMAPPED


def proper_prefixes(pieces: Iterable[bytes]) -> frozenset[bytes]:
    """All that some piece goes on from, the empty text among them."""
    return frozenset(piece[:size] for piece in pieces for size in range(len(piece)))
