"""How a draft may begin where the target has ended a token and the drafter would not."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_hetero_spec.vocab.boundary import Boundaries
from sglang_hetero_spec.vocab.draft_history import DraftHistory
from sglang_hetero_spec.vocab.intersection import intersect
from sglang_hetero_spec.vocab.openings import Openings
from tests.vocab.sides import side_of, table_of
from tests.vocab.texts import texts

PAIRS = [("llama2", "gpt2"), ("gpt2", "llama2"), ("gpt2", "bytes"), ("byt5", "llama3")]


@cache
def openings(target: str, draft: str) -> Openings:
    return Openings(side_of(draft), table_of(target))


def history(target: str, draft: str) -> DraftHistory:
    shared = intersect(side_of(target), side_of(draft))
    return DraftHistory(Boundaries(side_of(draft)), table_of(target), shared, openings(target, draft))


@pytest.mark.parametrize(("target", "draft"), PAIRS)
@pytest.mark.parametrize("held", [b" ", b" t", b"the", b"\n", b"    ", b"(", b"\xc3"])
def test_whoever_covers_the_held_bytes_may_begin(target: str, draft: str, held: bytes) -> None:
    pieces = table_of(draft).pieces
    found = openings(target, draft).beginning(held)
    covering = {i for i, piece in enumerate(pieces) if piece and piece.startswith(held)}
    assert covering <= found
    assert all(held.startswith(pieces[i] or b"?") for i in found - covering)
    assert any(i in found for i in side_of(draft).encode(held)[:1])


def test_a_token_that_nothing_would_begin_with_here_may_not_begin() -> None:
    """A `t` stands in the vocabulary, but the tokenizer never writes it where a `the` follows."""
    held = b" the"
    assert side_of("gpt2").encode(held)[0] in openings("llama2", "gpt2").beginning(held)
    (space_t,) = table_of("gpt2").ids_by_bytes[b" t"]
    assert space_t not in openings("llama2", "gpt2").beginning(held)


@pytest.mark.parametrize(("target", "draft"), PAIRS)
@pytest.mark.parametrize(("last", "held"), [(b" ", b" "), (b" ", b""), (b"t", b" t"), (b"", b"a"), (b"th", b"h")])
def test_what_the_target_has_one_token_for_does_not_follow(target: str, draft: str, last: bytes, held: bytes) -> None:
    known, pieces = table_of(target).ids_by_bytes, table_of(draft).pieces
    expected = {
        i
        for i, piece in enumerate(pieces)
        if piece and last and piece.startswith(held) and len(piece) > len(held) and last + piece[len(held) :] in known
    }
    assert openings(target, draft).joined(last, held) == expected


@pytest.mark.parametrize(("target", "draft"), PAIRS)
@settings(max_examples=20, deadline=None)
@given(text=texts, data=st.data())
def test_what_is_held_is_the_end_of_what_was_committed(target: str, draft: str, text: str, data: st.DataObject) -> None:
    ids = side_of(target).encode(b" " * (target == "llama2") + text.encode())
    reader, at = history(target, draft), 0
    while at < len(ids):
        step = data.draw(st.integers(1, 5))
        old = list(reader.tokens)
        change = reader.commit(ids[at : at + step])
        at += step
        assert [*old[: change.num_keep], *change.feed] == reader.tokens
        prefix = b" " if table_of(draft).strip_start else b""
        said = table_of(draft).in_the_middle(reader.tokens) + reader.held
        assert said == prefix + table_of(target).from_start(ids[:at])
        assert reader.tokens or len(reader.held) <= 3


def test_a_space_is_written_again_with_its_word() -> None:
    reader = history("llama2", "gpt2")
    reader.commit([*side_of("llama2").encode(b" one two"), *side_of("llama2").encode(b" ")])
    assert reader.held == b" "
    reader.commit(side_of("llama2").encode(b"=")[-1:], side_of("gpt2").encode(b" =")[:1])
    assert table_of("gpt2").in_the_middle(reader.tokens) + reader.held == b"one two ="
    no_way_to_go_on = history("gpt2", "bytes")
    no_way_to_go_on.commit(side_of("gpt2").encode(b"one "))
    assert no_way_to_go_on.held == b""
