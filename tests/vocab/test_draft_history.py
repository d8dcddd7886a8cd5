"""What the drafter has read of a request is what the target has committed."""

from __future__ import annotations

import itertools
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_hetero_spec.vocab.boundary import Boundaries
from sglang_hetero_spec.vocab.draft_history import Change, DraftHistory
from sglang_hetero_spec.vocab.intersection import Intersection, intersect
from sglang_hetero_spec.vocab.roles import Role
from tests.vocab.made_tokenizers import corpus
from tests.vocab.sides import side_of, table_of
from tests.vocab.texts import texts

SAYS_ALL = ["gpt2", "llama3", "llama2", "gemma", "bytes", "byt5"]
PAIRS = [pair for pair in itertools.product(SAYS_ALL, repeat=2) if "gemma" not in pair or "gpt2" in pair]


@cache
def shared(target: str, draft: str) -> Intersection:
    return intersect(side_of(target), side_of(draft))


def history(target: str, draft: str) -> DraftHistory:
    return DraftHistory(Boundaries(side_of(draft)), table_of(target), shared(target, draft))


def visible(name: str, ids: list[int]) -> bytes:
    return table_of(name).from_start(ids)


@pytest.mark.parametrize(("target", "draft"), PAIRS)
@settings(max_examples=25, deadline=None)
@given(text=texts, data=st.data())
def test_the_drafter_reads_the_committed_text(target: str, draft: str, text: str, data: st.DataObject) -> None:
    """In steps of any length, with proposals that are right, partly right or nonsense."""
    ids = side_of(target).encode(b" " * (target == "llama2") + text.encode())
    reader = history(target, draft)
    at = 0
    while at < len(ids):
        step = data.draw(st.integers(1, 5))
        proposed = _proposals(data, draft, table_of(target).in_the_middle(ids[at : at + step]), reader)
        old = [*reader.tokens, *proposed]
        change = reader.commit(ids[at : at + step], proposed)
        at += step
        assert [*old[: change.num_keep], *change.feed] == reader.tokens
        assert visible(draft, reader.tokens) + reader.held == visible(target, ids[:at])
        assert len(reader.held) <= 3


def _proposals(data: st.DataObject, draft: str, coming: bytes, reader: DraftHistory) -> list[int]:
    if not reader.tokens:
        return []
    right = side_of(draft).encode(reader.held + coming)
    wrong = data.draw(st.lists(st.integers(0, len(table_of(draft)) - 1), max_size=2))
    return [*right[: data.draw(st.integers(0, len(right)))], *wrong]


@pytest.mark.parametrize(("target", "draft"), PAIRS)
def test_read_in_steps_it_is_the_drafter_s_own_tokenisation(target: str, draft: str) -> None:
    text = "".join(corpus()[100:130] + corpus()[-8:]).encode()
    ids, reader = side_of(target).encode(text), history(target, draft)
    for at in range(0, len(ids), 3):
        reader.commit(ids[at : at + 3])
    text = visible(target, ids)
    prefix = b" " if table_of(draft).strip_start else b""
    assert reader.tokens == [*side_of(draft).begin, *side_of(draft).encode(prefix + text)]


def test_right_proposals_stay_and_are_not_fed_again() -> None:
    reader = history("gpt2", "bytes")
    reader.commit(side_of("gpt2").encode(b"The return"))
    num_old = len(reader.tokens)
    proposed = side_of("bytes").encode(b" of the cat")
    change = reader.commit(side_of("gpt2").encode(b" of the dog"), proposed)
    assert change == Change(num_old + len(b" of the "), tuple(side_of("bytes").encode(b"dog")))


def test_bos_once_and_specials_by_role() -> None:
    gpt2, llama2 = table_of("gpt2"), table_of("llama2")
    bos, eos = gpt2.first(Role.BOS), gpt2.eos[0]
    for first in ([], [bos]):
        reader = history("gpt2", "llama2")
        reader.commit([*first, *side_of("gpt2").encode(b"hello"), eos, *side_of("gpt2").encode(b"hello")])
        own_bos, own_eos = llama2.first(Role.BOS), llama2.eos[0]
        hello, again = side_of("llama2").encode(b" hello"), side_of("llama2").encode(b"hello")
        assert reader.tokens == [own_bos, *hello, own_eos, *again]
    proposed = history("gpt2", "llama2")
    proposed.commit(side_of("gpt2").encode(b"hello"))
    length = len(proposed.tokens)
    assert proposed.commit([eos], [llama2.eos[0]]) == Change(length + 1, ())


def test_a_draft_begins_with_what_was_held_back() -> None:
    reader = history("bytes", "gpt2")
    reader.commit(side_of("bytes").encode("say 中".encode()[:-1]))
    assert reader.held == "中".encode()[:-1]
    assert reader.new_text("中 国".encode()) == "中 国".encode()[2:] and reader.new_text(b"other") == b""
    reader.commit(side_of("bytes").encode("中".encode()[-1:]))
    assert reader.held == b"" and visible("gpt2", reader.tokens) == "say 中".encode()


def test_what_the_drafter_cannot_say_is_unknown_and_reading_goes_on() -> None:
    reader = history("gpt2", "characters")
    for part in ("aħ", "b ħ", "c"):
        reader.commit(side_of("gpt2").encode(part.encode()))
    assert table_of("characters").in_the_middle(reader.tokens) == b"ab c"
    assert table_of("characters").first(Role.UNK) in reader.tokens
    reader.commit([-5, 10**6])


def test_ten_thousand_spaces_are_read_at_no_growing_cost() -> None:
    reader = history("bytes", "gpt2")
    space = side_of("bytes").encode(b" ")
    num_fed = 0
    for _ in range(10_000):
        num_fed += len(reader.commit(space).feed)
    assert table_of("gpt2").in_the_middle(reader.tokens) == b" " * 10_000
    assert num_fed < 150_000
