"""TLI: the committed tokens of one request as the drafter reads them, token by token (arXiv 2502.05202, algorithm 4).

Every target token has one reading, whatever stands beside it, so nothing is tokenised while a server runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from sglang_hetero_spec.vocab.draft_history import Change
from sglang_hetero_spec.vocab.intersection import NO_TOKEN, Intersection
from sglang_hetero_spec.vocab.mid_text import MidText


class Readings:
    """target id -> the draft tokens that the drafter reads it as; shared by all requests of a drafter."""

    def __init__(self, shared: Intersection, begin: tuple[int, ...]) -> None:
        """begin: what the drafter's own tokenizer puts in front of a prompt."""
        one = shared.target_to_draft.tolist()
        spelled, offsets = shared.spelled.tolist(), shared.offsets.tolist()
        self._table = [
            (draft_id,) if draft_id != NO_TOKEN else tuple(spelled[offsets[i] : offsets[i + 1]])
            for i, draft_id in enumerate(one)
        ]
        self.begin = begin

    @classmethod
    def of(cls, shared: Intersection, draft: MidText) -> Readings:
        return cls(shared, draft.begin)

    def read(self, target_id: int) -> tuple[int, ...]:
        """() for what the drafter has no token for, and for ids that are padding of the target's model."""
        return self._table[target_id] if 0 <= target_id < len(self._table) else ()


class MappedHistory:
    """tokens: the drafter's ids."""

    def __init__(self, readings: Readings) -> None:
        self.tokens: list[int] = []
        self._readings = readings

    def commit(self, target_tokens: Sequence[int], proposed: Sequence[int] = ()) -> Change:
        """The target wrote these tokens (first of all: a prompt). proposed: draft ids that the drafter has read behind
        `tokens` meanwhile."""
        num_old = len(self.tokens)
        for target_id in target_tokens:
            read = self._readings.read(target_id)
            if not self.tokens and self._readings.begin and read[:1] != self._readings.begin[:1]:
                self.tokens += self._readings.begin
            self.tokens += read
        feed = self.tokens[num_old:]
        same = 0
        for expected, token_id in zip(proposed, feed, strict=False):
            if expected != token_id:
                break
            same += 1
        return Change(num_keep=num_old + same, feed=tuple(feed[same:]))
