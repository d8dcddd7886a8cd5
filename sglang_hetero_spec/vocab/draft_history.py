"""The committed text of one request in the drafter's own tokens, kept up to date as the target commits.

The drafter has its own sequence and its own KV. What it proposed and the target then wrote stays; the rest of the new
text is tokenised behind it, together with a short tail, so that words are written as the drafter would write them.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sglang_hetero_spec.vocab.boundary import CONTEXT_TOKENS, Boundaries, Tail, incomplete
from sglang_hetero_spec.vocab.intersection import NO_TOKEN, Intersection
from sglang_hetero_spec.vocab.openings import Openings
from sglang_hetero_spec.vocab.token_bytes import TokenBytes


@dataclass(frozen=True)
class Change:
    """num_keep: how many tokens of the old sequence with its proposals stay, from the front. feed: what follows."""

    num_keep: int
    feed: tuple[int, ...]


class DraftHistory:
    """tokens: the drafter's ids. held: bytes at the end of the committed text that the drafter has not read, so that
    its next draft should begin with them: a character that is not whole yet and, where there are `openings`, the last
    token if there is more than one way to go on from its beginning."""

    def __init__(
        self, draft: Boundaries, target: TokenBytes, shared: Intersection, openings: Openings | None = None
    ) -> None:
        self.tokens: list[int] = []
        self.held = b""
        self._draft = draft
        self._target = target
        self._shared = shared
        self._openings = openings
        self._has_text = False

    def commit(self, target_tokens: Sequence[int], proposed: Sequence[int] = ()) -> Change:
        """The target wrote these tokens (first of all: a prompt). proposed: draft ids that the drafter has read behind
        `tokens` meanwhile."""
        num_old = len(self.tokens)
        old = [*self._last(), *proposed]
        start = num_old + len(proposed) - len(old)
        if not self.tokens and not self._begins(target_tokens):
            self.tokens += self._draft.side.begin
        proposals = list(proposed)
        for item in self._items(target_tokens):
            if isinstance(item, int):
                self._append_special(item, proposals)
            else:
                self._append_text(item, proposals)
        new = self.tokens[start:]
        same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        return Change(num_keep=start + same, feed=tuple(new[same:]))

    def new_text(self, drafted: bytes) -> bytes:
        """What a draft adds to the committed text: nothing where it does not begin with the held bytes."""
        return drafted[len(self.held) :] if drafted.startswith(self.held) else b""

    def _last(self) -> list[int]:
        """The tokens that a commit can change: those of a tail."""
        return self.tokens[-CONTEXT_TOKENS:]

    def _begins(self, target_tokens: Sequence[int]) -> bool:
        bos = self._draft.side.begin
        return bool(target_tokens) and bool(bos) and self._reading(target_tokens[0]) == bos[0]

    def _reading(self, target_id: int) -> int:
        readings = self._shared.target_to_draft
        return int(readings[target_id]) if 0 <= target_id < len(readings) else NO_TOKEN

    def _items(self, target_tokens: Sequence[int]) -> Iterator[bytes | int]:
        """Runs of text as bytes, and tokens that are no text."""
        run: list[int] = []
        for token_id in target_tokens:
            if self._target.piece(token_id) is not None:
                run.append(token_id)
                continue
            if run:
                yield self._bytes(run)
            run = []
            yield token_id
        if run:
            yield self._bytes(run)

    def _bytes(self, run: list[int]) -> bytes:
        """Where a text begins, the target's prefix space is not text, and the drafter may have one of its own."""
        if self._has_text:
            return self._target.in_the_middle(run)
        self._has_text = True
        table = self._draft.side.table
        return (b" " if table.strip_start or table.at_start else b"") + self._target.from_start(run)

    def _append_special(self, target_id: int, proposals: list[int]) -> None:
        self.tokens += self._draft.side.encode(self.held)
        self.held = b""
        token_id = self._reading(target_id)
        if proposals[:1] == [token_id]:
            proposals.pop(0)
        else:
            proposals.clear()
        if token_id != NO_TOKEN:
            self.tokens.append(token_id)

    def _append_text(self, data: bytes, proposals: list[int]) -> None:
        data, at = self.held + data, 0
        while proposals and (piece := self._draft.side.table.piece(proposals[0])) and data.startswith(piece, at):
            self.tokens.append(proposals.pop(0))
            at += len(piece)
        rest = data[at:]
        self.held = b""
        if not rest:
            return
        proposals.clear()
        tail = self._draft.tail(self.tokens, rest)
        size = len(rest) - min(incomplete(tail.data + rest), len(rest))
        self.held = rest[size:]
        if size:
            self._replace_tail(tail, self._draft.side.encode(tail.data + rest[:size]))
        if not self.held:
            self._hold_last()

    def _hold_last(self) -> None:
        """Never the only token: there must be one to read."""
        piece = self._draft.side.table.piece(self.tokens[-1]) if len(self.tokens) > 1 else None
        if piece and self._openings is not None and len(self._openings.beginning(piece)) > 1:
            self.tokens.pop()
            self.held = piece

    def _replace_tail(self, tail: Tail, new: list[int]) -> None:
        """new: what the drafter would write for the tail and what follows it.

        The beginning of what lies behind an unsafe cut may be out of step, so there only what follows the last boundary
        that old and new tokens share is replaced.
        """
        start = len(self.tokens) - tail.num_tokens
        old = self.tokens[start:]
        num_same = (0, 0)
        if not tail.is_safe and self._draft.side.table.in_the_middle(new).startswith(tail.data):
            num_same = _last_common(self._ends(old), self._ends(new))
        del self.tokens[start + num_same[0] :]
        self.tokens += new[num_same[1] :]

    def _ends(self, ids: list[int]) -> list[int]:
        """Where each token ends, in bytes."""
        return list(itertools.accumulate(len(self._draft.side.table.piece(token_id) or b"") for token_id in ids))


def _last_common(one: list[int], other: list[int]) -> tuple[int, int]:
    """How many of each lie before the last end that both have."""
    common = max(set(one) & set(other), default=0)
    return bisect_right(one, common), bisect_right(other, common)
