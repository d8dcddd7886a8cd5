"""psi: the law of the target token that a drafter's text begins with (SLRS, arXiv 2502.05202, algorithm 3).

psi(t) is the probability of all draft token sequences whose text begins, under a rule (psi_rules.py), with t. A
sequence goes on while the rule is undecided, so psi is also the law of the t that `draw` proposes, exactly. What a
drafter ends before any text, and text that begins with no target token, is unmapped: a proposal that is rejected for
certain. psi_plan.py has the same in arrays.

Bound. Each sequence that the rule leaves undecided takes one row of a draft forward, and sequences of one length share
a forward. For `LongestMatch` these are the ways to spell the proper prefixes of the target's tokens in draft tokens
(`count_sequences` counts them): with a drafter of single bytes the number of different proper prefixes, fewer than the
bytes of all target tokens, and as many forwards as the longest target token has bytes. A drafter with longer tokens
spells a prefix in many ways, exponentially many in its length (lemma 3.1), and is refused.

psi of one token takes only the sequences whose text agrees with that token as far as both go. That is enough to sample:
accept t with min(1, p(t) / psi(t)); after a rejection draw t from p until one is kept, each with probability
max(0, 1 - psi(t) / p(t)), which is the residual law (accept.py). A step takes psi of at most two tokens on average.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sglang_hetero_spec.vocab.errors import PsiTooLarge
from sglang_hetero_spec.vocab.psi_rules import UNDECIDED, UNMAPPED, FirstToken, proper_prefixes

# A probability: float, Fraction, or whatever adds and multiplies.
Probability = Any
# Draft token sequences of one length -> for each the law of its next token, [len(sequences)][V_draft].
Forward = Callable[[list[tuple[int, ...]]], Sequence[Sequence[Probability]]]

MAX_SEQUENCES = 16_384


@dataclass(frozen=True)
class Drafter:
    """pieces: V_draft entries, the bytes of a draft token, None where it is no text. ends: draft id -> target id for
    the eos and the specials that the target has too; as the first token they propose it, behind text they end it."""

    pieces: Sequence[bytes | None]
    ends: Mapping[int, int]

    def target_of(self, text: bytes, draft_id: int, rule: FirstToken) -> tuple[bytes, int]:
        """The text with one more token, and what it begins with."""
        piece = self.pieces[draft_id]
        if piece:
            return text + piece, rule(text + piece, False)
        return text, rule(text, True) if text else self.ends.get(draft_id, UNMAPPED)


@dataclass(frozen=True)
class Psi:
    """mass: target id -> psi, where it is not 0; unmapped: the rest of the drafter's mass. Of one token only: `mass`
    has no other, and `unmapped` means nothing. num_sequences, num_forwards: what it took."""

    mass: dict[int, Probability]
    unmapped: Probability
    num_sequences: int
    num_forwards: int


def compute_psi(
    forward: Forward,
    drafter: Drafter,
    rule: FirstToken,
    max_sequences: int = MAX_SEQUENCES,
    only: tuple[int, bytes] | None = None,
) -> Psi:
    """PsiTooLarge before a forward that would go beyond `max_sequences`.

    only: a target id and its bytes (none for a special), to have psi of that token alone.
    """
    mass: dict[int, Probability] = {}
    # The text and probability of each undecided draft token sequence.
    undecided: dict[tuple[int, ...], tuple[bytes, Probability]] = {(): (b"", 1)}
    num_sequences = num_forwards = 0
    while undecided:
        num_sequences += len(undecided)
        if num_sequences > max_sequences:
            raise too_large(num_sequences, max_sequences)
        num_forwards += 1
        rows = forward(list(undecided))
        longer: dict[tuple[int, ...], tuple[bytes, Probability]] = {}
        for (sequence, (text, weight)), row in zip(undecided.items(), rows, strict=True):
            for draft_id, probability in enumerate(row):
                if not probability:
                    continue
                new_text, target_id = drafter.target_of(text, draft_id, rule)
                if target_id != UNDECIDED:
                    mass[target_id] = mass.get(target_id, 0) + weight * probability
                elif only is None or (only[1] and agree(new_text, only[1])):
                    longer[*sequence, draft_id] = (new_text, weight * probability)
        undecided = longer
    unmapped = mass.pop(UNMAPPED, 0)
    if only is not None:
        mass = {only[0]: mass.get(only[0], 0)}
    return Psi(mass=mass, unmapped=unmapped, num_sequences=num_sequences, num_forwards=num_forwards)


def draw(next_token: Callable[[tuple[int, ...]], int], drafter: Drafter, rule: FirstToken) -> int:
    """A target id with the law psi, or UNMAPPED. next_token: draws from the drafter behind a sequence.

    What was drawn behind the token is thrown away: it is not drawn from the law of what follows the token.
    """
    sequence: tuple[int, ...] = ()
    text, target_id = b"", UNDECIDED
    while target_id == UNDECIDED:
        draft_id = next_token(sequence)
        text, target_id = drafter.target_of(text, draft_id, rule)
        sequence = (*sequence, draft_id)
    return target_id


@dataclass(frozen=True)
class Counts:
    """The most sequences that psi takes under `LongestMatch`: of all tokens, and of each one alone, [V_target]."""

    all_tokens: int
    by_token: tuple[int, ...]


def count_sequences(draft_pieces: Sequence[bytes | None], target_pieces: Sequence[bytes | None]) -> Counts:
    """Known before any forward: the ways to spell each proper prefix of a target token in draft tokens.

    For one token only the prefixes that agree with it count; a token that is no text takes the empty one.
    """
    ways = _spellings(draft_pieces, proper_prefixes(piece for piece in target_pieces if piece))
    behind: dict[bytes, int] = {}
    for text, number in ways.items():
        for size in range(len(text) + 1):
            behind[text[:size]] = behind.get(text[:size], 0) + number
    pieces = (piece or b"" for piece in target_pieces)
    by_token = (
        sum(ways[piece[:size]] for size in range(len(piece))) + behind.get(piece, 0) if piece else 1 for piece in pieces
    )
    return Counts(all_tokens=sum(ways.values()), by_token=tuple(by_token))


def check_bound(
    draft_pieces: Sequence[bytes | None], target_pieces: Sequence[bytes | None], max_sequences: int = MAX_SEQUENCES
) -> None:
    """PsiTooLarge for vocabularies where psi of all tokens could take more."""
    needed = count_sequences(draft_pieces, target_pieces).all_tokens
    if needed > max_sequences:
        raise too_large(needed, max_sequences)


def _spellings(draft_pieces: Sequence[bytes | None], prefixes: frozenset[bytes]) -> dict[bytes, int]:
    """prefix -> in how many ways draft tokens spell it."""
    pieces = Counter(piece for piece in draft_pieces if piece)
    sizes = sorted({len(piece) for piece in pieces})
    ways = {b"": 1}
    for text in sorted(prefixes - {b""}, key=len):
        ends = ((text[:-size], text[-size:]) for size in sizes if size <= len(text))
        ways[text] = sum(ways[head] * pieces[end] for head, end in ends)
    return ways


def agree(one: bytes, other: bytes) -> bool:
    """As far as both go."""
    return one.startswith(other) or other.startswith(one)


def too_large(needed: int, allowed: int) -> PsiTooLarge:
    return PsiTooLarge(
        f"string-level rejection sampling (`slrs`) would take {needed} or more rows of draft forwards for one proposal,"
        f" and {allowed} are allowed; use a drafter of single bytes and a target of short tokens, or `slem` or `tli`."
    )
