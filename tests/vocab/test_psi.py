"""psi against the sum that defines it, and the laws of SLRS and TLI against the target's, all in whole fractions."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from sglang_hetero_spec.vocab import accept
from sglang_hetero_spec.vocab.boundary import Boundaries
from sglang_hetero_spec.vocab.errors import PsiTooLarge
from sglang_hetero_spec.vocab.mid_text import MidText
from sglang_hetero_spec.vocab.psi import Drafter, Psi, check_bound, compute_psi, count_sequences, draw
from sglang_hetero_spec.vocab.psi_plan import PsiPlan
from sglang_hetero_spec.vocab.psi_rules import UNMAPPED, FirstToken, LongestMatch, OwnTokenisation
from sglang_hetero_spec.vocab.token_bytes import read_token_bytes
from tests.vocab.exact import accepted, every_run, marginal, output_law, random_law
from tests.vocab.made_tokenizers import save
from tests.vocab.sides import table_of


@dataclass(frozen=True)
class Case:
    """target: bytes of the target's ids 0, 1, ..., its eos last. draft: bytes of the drafter's, None for its eos."""

    target: tuple[bytes, ...]
    draft: tuple[bytes | None, ...]
    maps_eos: bool = True

    @property
    def num_target(self) -> int:
        return len(self.target) + 1

    @property
    def drafter(self) -> Drafter:
        ends = {i: len(self.target) for i, piece in enumerate(self.draft) if piece is None}
        return Drafter(self.draft, ends if self.maps_eos else {})

    @property
    def rule(self) -> LongestMatch:
        return LongestMatch({piece: i for i, piece in enumerate(self.target)})


CASES = {
    "bytes": Case((b"a", b"b", b"ab", b"aba"), (b"a", b"b", None)),
    "no common end": Case((b"a", b"b", b"ab", b"aba"), (b"a", b"b", None), maps_eos=False),
    "partial overlap": Case((b"a", b"bc", b"ca", b"d"), (b"a", b"b", b"c", b"x")),
    "no overlap": Case((b"a", b"ab"), (b"x", b"y", None), maps_eos=False),
    "a token is a prefix of nothing": Case((b"ab", b"ba", b"bb"), (b"a", b"b", None)),
    "longer draft tokens": Case((b"a", b"ab", b"abc", b"cab"), (b"a", b"ab", b"b", b"c", b"bca", None)),
    "the same bytes twice": Case((b"a", b"aa", b"b"), (b"a", b"a", b"b", None)),
    "a token without bytes": Case((b"a", b"ab"), (b"a", b"", b"b", None)),
}


def law_of(case: Case, seed: object = 0):
    return lambda sequence: random_law(len(case.draft), seed, sequence)


def psi_of(case: Case, seed: object = 0, **options: object) -> Psi:
    law = law_of(case, seed)
    return compute_psi(lambda batch: [law(sequence) for sequence in batch], case.drafter, case.rule, **options)


def by_definition(case: Case, law, first_token, length: int) -> dict[int, Fraction]:
    """Lemma 3.1's sum: every sequence until it ends or its text is `length` long, then the whole text is looked at."""
    found: dict[int, Fraction] = {}
    todo: list[tuple[tuple[int, ...], bytes, Fraction]] = [((), b"", Fraction(1))]
    while todo:
        sequence, text, weight = todo.pop()
        for draft_id, chance in enumerate(law(sequence)):
            piece = case.draft[draft_id]
            if not chance:
                continue
            if piece and len(text + piece) < length:
                todo.append(((*sequence, draft_id), text + piece, weight * chance))
                continue
            whole = text + (piece or b"")
            result = first_token(whole) if whole else case.drafter.ends.get(draft_id, UNMAPPED)
            found[result] = found.get(result, Fraction(0)) + weight * chance
    return found


def longest(case: Case):
    def first_token(text: bytes) -> int:
        fits = [i for i, piece in enumerate(case.target) if text.startswith(piece)]
        return max(fits, key=lambda i: len(case.target[i]), default=UNMAPPED)

    return first_token


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(5))
def test_psi_is_the_sum_over_all_sequences(name: str, seed: int) -> None:
    case = CASES[name]
    found = psi_of(case, seed)
    expected = by_definition(case, law_of(case, seed), longest(case), length=max(map(len, case.target)))
    assert found.unmapped == expected.pop(UNMAPPED, 0) and found.mass == expected
    assert sum(found.mass.values()) + found.unmapped == 1


@pytest.mark.parametrize("name", CASES)
def test_psi_is_the_law_of_what_is_drawn(name: str) -> None:
    case = CASES[name]
    found = psi_of(case)
    drawn = every_run(lambda next_token: draw(next_token, case.drafter, case.rule), law_of(case))
    assert drawn == {**found.mass, **({UNMAPPED: found.unmapped} if found.unmapped else {})}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(5))
def test_slrs_writes_what_the_target_would(name: str, seed: int) -> None:
    case = CASES[name]
    found, p = psi_of(case, seed), random_law(case.num_target, "p", seed)
    q = [found.mass.get(i, Fraction(0)) for i in range(case.num_target)]
    written = output_law(p, {**found.mass, UNMAPPED: found.unmapped}, q)
    assert marginal(written, case.num_target) == p
    assert accepted(written) == sum(min(a, b) for a, b in zip(p, q, strict=True))
    assert accepted(written) >= sum(a * b for a, b in zip(p, q, strict=True)), "not below SLEM's"


def test_unmapped_mass_goes_to_the_residual_and_not_to_p() -> None:
    """Drawing from p after an unmapped proposal, as a public implementation does, is not lossless."""
    case = CASES["no common end"]
    found, p = psi_of(case, 1), random_law(case.num_target, "p", 1)
    q = [found.mass.get(i, Fraction(0)) for i in range(case.num_target)]
    assert found.unmapped > 0 and accept.residual(p, q) != p
    wrong = [
        mass + found.unmapped * (a - r)
        for mass, a, r in zip(marginal(output_law(p, {**found.mass, UNMAPPED: found.unmapped}, q), case.num_target), p,
                              accept.residual(p, q), strict=True)
    ]  # fmt: skip
    assert wrong != p


def test_two_steps_in_a_row_have_the_target_s_joint_law() -> None:
    """Each with psi of the text so far; what was drawn beyond the first token is thrown away."""
    case = CASES["bytes"]
    joint: dict[tuple[int, int], Fraction] = {}
    for first, weight in enumerate(_one_step(case, ())):
        for second, chance in enumerate(_one_step(case, (first,))):
            joint[first, second] = weight * chance
    p, p_after = random_law(case.num_target, "p", ()), lambda first: random_law(case.num_target, "p", (first,))
    assert joint == {(i, j): p[i] * p_after(i)[j] for i in range(len(p)) for j in range(len(p))}


def _one_step(case: Case, context: tuple[int, ...]) -> list[Fraction]:
    found, p = psi_of(case, context), random_law(case.num_target, "p", context)
    q = [found.mass.get(i, Fraction(0)) for i in range(case.num_target)]
    return marginal(output_law(p, {**found.mass, UNMAPPED: found.unmapped}, q), case.num_target)


@pytest.mark.parametrize("name", CASES)
def test_psi_of_one_token_alone(name: str) -> None:
    case, whole = CASES[name], psi_of(CASES[name])
    for target_id, piece in enumerate([*case.target, b""]):
        alone = psi_of(case, only=(target_id, piece))
        assert alone.mass == {target_id: whole.mass.get(target_id, 0)}
        assert alone.num_sequences <= whole.num_sequences
    assert psi_of(CASES["bytes"], only=(4, b"")).num_sequences == 1, "an end is decided by the first token"


@settings(deadline=None)
@given(size=st.integers(1, 6), seed=st.integers(0, 10**6), missing=st.integers(0, 4))
def test_keeping_draws_from_p_is_the_residual(size: int, seed: int, missing: int) -> None:
    p, q = random_law(size, seed, "p"), [x * Fraction(4 - missing, 4) for x in random_law(size, seed, "q")]
    kept = [a * accept.keep_probability(a, b) if a else Fraction(0) for a, b in zip(p, q, strict=True)]
    if sum(kept):
        assert [each / sum(kept) for each in kept] == accept.residual(p, q)
        assert sum(kept) == 1 - sum(min(a, b) for a, b in zip(p, q, strict=True)), "so one extra psi a step on average"
    else:
        assert p == q and accept.residual(p, q) == p


def test_resample_draws_until_one_is_kept() -> None:
    p, q = [Fraction(1, 2), Fraction(1, 2)], [Fraction(3, 4), Fraction(1, 4)]
    tokens, coins = iter([0, 1, 1]), iter([Fraction(0), Fraction(1, 2), Fraction(1, 4)])
    assert accept.resample(lambda: next(tokens), p, q.__getitem__, lambda: next(coins)) == 1
    assert next(tokens, None) is None, "0 is never kept, 1 not by a coin of exactly its probability"
    assert accept.resample(lambda: 0, p, q.__getitem__, lambda: Fraction(0), max_draws=3) is None


# TLI


@settings(deadline=None, max_examples=200)
@given(
    maps=st.lists(st.sampled_from([-1, 0, 1, 2, 3, 4]), min_size=1, max_size=6), seed=st.integers(0, 10**6),
    extra=st.integers(0, 2),
)  # fmt: skip
def test_tli_writes_what_the_target_would(maps: list[int], seed: int, extra: int) -> None:
    """Any overlap, none and all among them; q is renormalised, p is not touched."""
    one_to_one = [t if t not in maps[:i] else -1 for i, t in enumerate(maps)]
    size = 5 + extra
    p, q = random_law(size, seed, "p"), random_law(len(maps), seed, "q")
    law = accept.tli_law(q, one_to_one, size)
    if law is None:
        assert not any(weight for weight, t in zip(q, one_to_one, strict=True) if t >= 0)
        return
    assert sum(law) == 1 and all(law[t] == 0 for t in range(size) if t not in one_to_one)
    written = output_law(p, {i: mass for i, mass in enumerate(law) if mass}, law)
    assert marginal(written, size) == p
    assert accepted(written) == sum(min(a, b) for a, b in zip(p, law, strict=True))
    union = sum(min(p[t], weight) for weight, t in zip(q, one_to_one, strict=True) if t >= 0)
    assert accepted(written) >= union, "not below the union of the vocabularies (algorithm 1)"


# The tokenizer's own rule


@cache
def ambiguous() -> Boundaries:
    """b c merges before a b, so that what a text begins with depends on its third byte: ab d, a bc."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(["</s>", *alphabet, "bc", "ab", "dd"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[("b", "c"), ("a", "b"), ("d", "d")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["</s>"])
    folder: Path = save(tokenizer, {"eos_token": "</s>"})
    return Boundaries(MidText(read_token_bytes(folder)))


@pytest.mark.parametrize("max_bytes", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_psi_under_the_tokenizer_s_own_rule(max_bytes: int, seed: int) -> None:
    bounds = ambiguous()
    case = Case((), (b"a", b"b", b"c", b"d", None), maps_eos=False)
    law, rule = law_of(case, seed), OwnTokenisation(bounds, max_bytes)
    found = compute_psi(lambda batch: [law(sequence) for sequence in batch], case.drafter, rule)
    expected = by_definition(case, law, lambda text: bounds.side.encode(text)[0], max_bytes)
    assert found.unmapped == expected.pop(UNMAPPED, 0) and found.mass == expected
    p = random_law(len(bounds.side.table), "p", seed)
    q = [found.mass.get(i, Fraction(0)) for i in range(len(p))]
    assert marginal(output_law(p, {**found.mass, UNMAPPED: found.unmapped}, q), len(p)) == p


def test_the_tokenizer_s_own_rule_is_not_the_longest_match() -> None:
    bounds = ambiguous()
    rule, by_bytes = OwnTokenisation(bounds, 9), bounds.side.table.ids_by_bytes
    greedy = LongestMatch({piece: ids[0] for piece, ids in by_bytes.items()})
    assert (rule(b"abca", False), greedy(b"abca", False)) == (by_bytes[b"a"][0], by_bytes[b"ab"][0])
    assert rule(b"abda", False) == by_bytes[b"ab"][0]


def text_rules() -> list[FirstToken]:
    return [CASES[name].rule for name in CASES] + [OwnTokenisation(ambiguous(), 4)]


@given(text=st.text("abcdx", min_size=1, max_size=5).map(str.encode), more=st.text("abcdx", max_size=3).map(str.encode))
def test_what_is_decided_stays_decided(text: bytes, more: bytes) -> None:
    for rule in text_rules():
        before = rule(text, False)
        assert rule(text, True) != -2
        if before != -2 and not (isinstance(rule, OwnTokenisation) and len(text) >= 4):
            assert rule(text + more, False) == before == rule(text + more, True)


# The bound


@pytest.mark.parametrize("name", CASES)
def test_the_bound_counts_what_a_drafter_without_zeros_takes(name: str) -> None:
    case = CASES[name]
    found = compute_psi(
        lambda batch: [random_law(len(case.draft), sequence, zeros=False) for sequence in batch],
        case.drafter,
        case.rule,
    )
    assert found.num_sequences == count_sequences(case.draft, case.target).all_tokens
    assert found.num_forwards <= max(map(len, case.target))


def test_too_much_is_refused_before_it_is_computed() -> None:
    case, rows = CASES["longer draft tokens"], []

    def forward(batch: list[tuple[int, ...]]) -> list[list[Fraction]]:
        rows.extend(batch)
        return [random_law(len(case.draft), sequence, zeros=False) for sequence in batch]

    needed = count_sequences(case.draft, case.target).all_tokens
    compute_psi(forward, case.drafter, case.rule, max_sequences=needed)
    assert len(rows) == needed
    rows.clear()
    with pytest.raises(PsiTooLarge, match=rf"{needed} or more .* {needed - 1} are allowed") as caught:
        compute_psi(forward, case.drafter, case.rule, max_sequences=needed - 1)
    assert len(rows) < needed and "\n" not in str(caught.value)
    with pytest.raises(PsiTooLarge):
        check_bound(case.draft, case.target, needed - 1)
    check_bound(case.draft, case.target, needed)


@pytest.mark.parametrize("name", CASES)
def test_the_bound_of_one_token_is_no_less_than_what_it_takes(name: str) -> None:
    case = CASES[name]
    bound = count_sequences(case.draft, (*case.target, None))
    for target_id, piece in enumerate([*case.target, b""]):
        found = compute_psi(
            lambda batch: [random_law(len(case.draft), sequence, zeros=False) for sequence in batch],
            case.drafter,
            case.rule,
            only=(target_id, piece),
        )
        assert found.num_sequences == bound.by_token[target_id] <= bound.all_tokens


def test_bytes_are_within_bounds_where_words_are_not() -> None:
    target = table_of("llama2").pieces
    with_bytes = count_sequences(table_of("bytes").pieces, target).all_tokens
    assert with_bytes < 2 * len(target)
    check_bound(table_of("bytes").pieces, target)
    with pytest.raises(PsiTooLarge, match="`slem`"):
        check_bound(table_of("gpt2").pieces, target)


def test_a_long_token_has_exponentially_many_spellings() -> None:
    """Lemma 3.1: 2 ** (n - 1) ways to write n letters with tokens of every length."""
    pieces = [b"a" * n for n in range(1, 21)]
    assert count_sequences(pieces, [b"a" * 20]).all_tokens == 1 + sum(2 ** (n - 1) for n in range(1, 20))


# In arrays


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_the_plan_computes_the_same(name: str, seed: int) -> None:
    case, law = CASES[name], law_of(CASES[name], seed)
    plan = PsiPlan.make(case.drafter, case.rule)
    rows = np.array([[float(x) for x in law(sequence)] for sequence in plan.sequences])
    exact = psi_of(case, seed)
    found, unmapped = plan.psi(rows, case.num_target)
    assert found == pytest.approx([float(exact.mass.get(i, 0)) for i in range(case.num_target)])
    assert unmapped == pytest.approx(float(exact.unmapped))
    for target_id, piece in enumerate([*case.target, b""]):
        needed = plan.needed_for(piece)
        assert plan.psi_of(target_id, needed, rows[needed]) == pytest.approx(float(exact.mass.get(target_id, 0)))
    pieces = (*case.target, None)
    assert len(plan.sequences) == count_sequences(case.draft, pieces).all_tokens
    assert [len(plan.needed_for(piece or b"")) for piece in pieces] == [*count_sequences(case.draft, pieces).by_token]


def test_a_plan_that_would_be_too_large_is_refused() -> None:
    case = CASES["longer draft tokens"]
    needed = count_sequences(case.draft, case.target).all_tokens
    PsiPlan.make(case.drafter, case.rule, needed)
    with pytest.raises(PsiTooLarge):
        PsiPlan.make(case.drafter, case.rule, needed - 1)
