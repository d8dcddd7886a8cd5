"""Token-for-token comparison. A difference counts unless the target's two best logits lie within TIE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.engine.cases import Case

TIE = 1e-4
# top_logprobs of a generated token: [log-probability, token id, text]
TopLogprobs = Callable[[Case, int], list]


@dataclass
class Tally:
    """What a session compared, for its summary."""

    answers: int = 0
    tokens: int = 0
    ties: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """best_two: the target's two likeliest tokens at a place of its answer to a case, asked only where needed."""

    tally: Tally
    best_two: TopLogprobs

    def answers(self, cases: Sequence[Case], expected: Sequence[Any], got: Sequence[Any]) -> None:
        for case, want, have in zip(cases, expected, got, strict=True):
            for one_want, one_have in zip(_as_list(want), _as_list(have), strict=True):
                self.answer(case, one_want, one_have)

    def answer(self, case: Case, want: dict, have: dict) -> None:
        if self.tokens(case, want["output_ids"], have["output_ids"]):
            assert have["text"] == want["text"], _where(case)
            for name in ("finish_reason", "prompt_tokens", "completion_tokens"):
                assert have["meta_info"][name] == want["meta_info"][name], f"{name} of {_where(case)}"

    def tokens(self, case: Case, want: list[int], have: list[int]) -> bool:
        """True if they are equal, False after a tie; AssertionError for a difference that counts."""
        self.tally.answers += 1
        place = first_difference(want, have)
        self.tally.tokens += place
        if place == len(want) == len(have):
            return True
        assert place < len(want) and place < len(have), (
            f"{len(have)} tokens instead of {len(want)}, equal as far as they go: {_where(case)}"
        )
        (best, _, _), (second, _, _) = self.best_two(case, place)
        assert best - second <= TIE, (
            f"Token {place} is {have[place]}, not {want[place]}, which wins by {best - second:.6f}: {_where(case)}"
        )
        self.tally.ties.append(f"{case.drafter}: token {place}, gap {best - second:.1e}")
        return False


def first_difference(left: list[int], right: list[int]) -> int:
    pairs = zip(left, right, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def _as_list(answer: Any) -> list[dict]:
    return answer if isinstance(answer, list) else [answer]


def _where(case: Case) -> str:
    return f"drafter {case.drafter}, {case.params}, prompt {str(case.prompt)[:80]!r}"
