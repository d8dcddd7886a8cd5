"""Where a text may be cut so that its tokens behind the cut depend on nothing before it.

No token of the vocabulary contains the two bytes next to a safe cut side by side, so no merge crosses it, nor a Unigram
piece. Where a pre-tokenizer splits by a pattern, the cut lies before a space behind something else: the patterns in use
(GPT-2, cl100k, Llama 3, Qwen) all begin a new match there, and what they match from there on depends only on what
follows. From a safe cut a short tail is tokenised, at a cost that does not depend on the length of the context.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sglang_hetero_spec.vocab.mid_text import MidText

# Where no cut is safe: so much text, from a cut that no token crosses, brings most patterns back into step.
_WANTED_BYTES = 64
# And never more: what no token begins in (10,000 spaces) is cut anyway, at a token.
_MAX_BYTES = 192
_MAX_TOKENS = 48
# A context that is not longer is taken for a whole text; more than this many tokens are not looked at.
CONTEXT_TOKENS = _MAX_TOKENS + 1
# What may follow these bytes. Python's incremental decoder is not used: it waits for the end of surrogates, too.
_SECOND = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}


@dataclass(frozen=True)
class Tail:
    """The last `num_tokens` of a context, and their bytes. is_safe: whether it begins behind a safe cut."""

    num_tokens: int
    data: bytes
    is_safe: bool


@dataclass(frozen=True)
class Continuation:
    """A tail and new bytes, tokenised as one.

    before: tokens up to the end of the tail, after: those behind it. gap: bytes of new text in the token that lies
    across that end, 0 where none does; such a token is in neither list. held: new bytes at the end that are the
    beginning of a character.
    """

    tail: Tail
    before: list[int]
    after: list[int]
    gap: int
    held: int


class Boundaries:
    """Safe cuts of one tokenizer."""

    def __init__(self, side: MidText) -> None:
        self.side = side
        self._joins = _joins(side.table.pieces)

    def continue_text(self, context: Sequence[int], new: bytes) -> Continuation:
        """New bytes behind the tokens of a context, of which only the end is looked at."""
        tail = self.tail(context, new)
        data = tail.data + new
        held = min(incomplete(data), len(new))
        data = data[: len(data) - held]
        before, after, gap = self._divide(self.side.spell(data), len(tail.data))
        return Continuation(tail=tail, before=before, after=after, gap=gap, held=held)

    def tail(self, context: Sequence[int], new: bytes) -> Tail:
        """The shortest behind a safe cut; where there is none, one behind a cut that no token crosses, else any."""
        best: Tail | None = None
        pieces: list[bytes] = []
        size, following = 0, new[:1]
        for token_id in reversed(context[-_MAX_TOKENS:]):
            piece = self.side.table.piece(token_id)
            if piece is None:  # a special token, text begins anew behind it
                return _tail(pieces, is_safe=True)
            if self._is_free(piece[-1:], following):
                best = _tail(pieces, is_safe=not self.side.splits or (following == b" " and not piece[-1:].isspace()))
                if best.is_safe or size >= _WANTED_BYTES:
                    return best
            if size + len(piece) > _MAX_BYTES:
                break
            pieces.append(piece)
            size, following = size + len(piece), piece[:1] or following
        else:
            if len(context) <= _MAX_TOKENS:
                return _tail(pieces, is_safe=True)
        return best or _tail(pieces, is_safe=False)

    def has_free_cut(self, text: bytes) -> bool:
        """Whether there is a place inside the text that no token crosses."""
        return any(not self._joins[last << 8 | first] for last, first in itertools.pairwise(text))

    def _is_free(self, last: bytes, first: bytes) -> bool:
        """Whether no token crosses a cut between these two bytes; not where one is missing, nor inside a character."""
        return bool(last and first) and not 0x80 <= first[0] < 0xC0 and not self._joins[last[0] << 8 | first[0]]

    def _divide(self, ids: list[int], end: int) -> tuple[list[int], list[int], int]:
        """before, after and gap of `Continuation`. end: where the tail ends, in bytes."""
        at = 0
        for i, token_id in enumerate(ids):
            if at == end:
                return ids[:i], ids[i:], 0
            at += len(self.side.table.piece(token_id) or b"")
            if at > end:
                return ids[:i], ids[i + 1 :], at - end
        return ids, [], 0


def _tail(pieces: list[bytes], is_safe: bool) -> Tail:
    """pieces: the last one first."""
    return Tail(len(pieces), b"".join(reversed(pieces)), is_safe)


def incomplete(data: bytes) -> int:
    """How many bytes at the end begin a UTF-8 character that is not all there."""
    for size in range(1, min(len(data), 3) + 1):
        first = data[-size]
        if not 0x80 <= first < 0xC0:
            length = 2 if 0xC2 <= first < 0xE0 else 3 if 0xE0 <= first < 0xF0 else 4 if 0xF0 <= first < 0xF5 else 0
            low, high = _SECOND.get(first, (0x80, 0xBF))
            return size if size < length and (size == 1 or low <= data[1 - size] <= high) else 0
    return 0


def _joins(pieces: Sequence[bytes | None]) -> bytes:
    """[65536], at 256 * a + b: whether a token contains the bytes a, b side by side."""
    joins = np.zeros(1 << 16, np.uint8)
    text = [piece for piece in pieces if piece]
    data = np.frombuffer(b"".join(text), np.uint8).astype(np.int64)
    pairs = data[:-1] << 8 | data[1:]
    inside = np.ones(len(pairs), bool)
    inside[np.cumsum([len(piece) for piece in text])[:-1] - 1] = False
    joins[pairs[inside]] = 1
    return joins.tobytes()
