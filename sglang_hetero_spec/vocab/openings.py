"""How a draft may begin behind a text that ends where the drafter would not end a token ("token healing").

A target that writes " " and then "=" leaves a drafter that always wrote " =" behind a space of its own, where it has
never seen anything. So the drafter does not read the last token, but writes it again, or a longer one with the same
beginning. And what the target would have written as one token with its last one, it did not mean to write.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import lru_cache

from sglang_hetero_spec.vocab.mid_text import MidText
from sglang_hetero_spec.vocab.token_bytes import TokenBytes

# What may follow a text: with these behind it, its own tokens may be others than at the end.
_FOLLOWING = (b"", b"a", b"0", b"=", b'"', b".", b" ", b"\n")
_BEHIND_ALL = b"\xff" * 64
_KEPT = 4096


class Openings:
    """draft: the tokenizer that continues; target: whose tokens were committed."""

    def __init__(self, draft: MidText, target: TokenBytes) -> None:
        self._draft = draft
        self._draft_pieces = sorted(draft.table.ids_by_bytes)
        self._target_pieces = sorted(target.ids_by_bytes)
        self.beginning = lru_cache(_KEPT)(self._beginning)
        self.joined = lru_cache(_KEPT)(self._joined)

    def _beginning(self, held: bytes) -> frozenset[int]:
        """Draft ids that may be the first of a text that begins with these bytes: all that cover them, and those that
        the tokenizer itself writes for their beginning."""
        covering = _starting_with(self._draft_pieces, held)
        found = {token_id for piece in covering for token_id in self._draft.table.ids_by_bytes[piece]}
        for following in _FOLLOWING:
            found.update(self._draft.spell(held + following)[:1])
        return frozenset(found)

    def _joined(self, last: bytes, held: bytes) -> frozenset[int]:
        """Draft ids that go on from `held` with what the target would have written in one token with its last one."""
        if not last:
            return frozenset()
        longer = (piece for piece in _starting_with(self._target_pieces, last) if len(piece) > len(last))
        ids = self._draft.table.ids_by_bytes
        return frozenset(token_id for piece in longer for token_id in ids.get(held + piece[len(last) :], ()))


def _starting_with(pieces: list[bytes], start: bytes) -> list[bytes]:
    """pieces: sorted."""
    return pieces[bisect_left(pieces, start) : bisect_right(pieces, start + _BEHIND_ALL)]
