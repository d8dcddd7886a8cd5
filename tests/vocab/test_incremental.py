"""SLEM between drafter and target: a tail gives what the whole text would."""

from __future__ import annotations

import time
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sglang_hetero_spec.vocab.boundary import CONTEXT_TOKENS, Boundaries, incomplete
from sglang_hetero_spec.vocab.incremental import Candidates, drafted_text, propose
from sglang_hetero_spec.vocab.mid_text import MidText
from sglang_hetero_spec.vocab.roles import Role
from tests.vocab.made_tokenizers import MAKERS, corpus
from tests.vocab.sides import side_of, table_of
from tests.vocab.texts import hard_bytes, texts

SAYS_ALL = ["gpt2", "llama3", "llama2", "gemma", "bytes", "byt5", "demo"]
LIMITS = {"max_depth": 10_000, "max_nodes": 10_000}


@cache
def boundaries_of(name: str) -> Boundaries:
    return Boundaries(side_of(name))


def first_chain(found: Candidates) -> list[int]:
    """Nodes 1, 2, ... as long as each hangs on the one before."""
    chain = []
    for i in range(1, len(found.tokens)):
        if found.parents[i] != i - 1:
            break
        chain.append(found.tokens[i])
    return chain


def paths(found: Candidates) -> list[list[int]]:
    """Token lists from below the root to each node."""
    made: list[list[int]] = [[]]
    for i in range(1, len(found.tokens)):
        made.append([*made[found.parents[i]], found.tokens[i]])
    return made


@pytest.mark.parametrize("name", SAYS_ALL)
@settings(max_examples=80, deadline=None)
@given(before=texts, after=texts, data=st.data())
def test_a_tail_gives_what_the_whole_text_would(name: str, before: str, after: str, data: st.DataObject) -> None:
    """Wherever the target's own tokens of the text have a boundary, the draft goes on with those behind it."""
    whole = side_of(name).encode((before + after).encode())
    cut = data.draw(st.integers(0, len(whole)))
    drafted = table_of(name).in_the_middle(whole[cut:])[:512]
    context = [table_of(name).eos[0], *whole[:cut]]
    found = boundaries_of(name).continue_text(context, drafted)
    if not found.tail.is_safe:
        return
    whole = side_of(name).encode(table_of(name).in_the_middle(whole[:cut]) + drafted[: len(drafted) - found.held])
    if table_of(name).in_the_middle(whole[:cut]) != table_of(name).in_the_middle(context):
        return  # what is held back, or beyond the limit, would have changed the tokens before
    if whole[:cut] != context[1:]:
        return
    assert first_chain(propose(boundaries_of(name), context, drafted, **LIMITS)) == whole[cut:]


@pytest.mark.parametrize("name", ["gpt2", "llama3", "llama2", "gemma", "demo"])
def test_on_real_text_every_boundary_is_well_defined(name: str) -> None:
    """The same on the corpus, where no example may fall out of the condition."""
    side, bounds = side_of(name), boundaries_of(name)
    whole = side.encode("".join(corpus()[200:260]).encode())
    num_safe = 0
    for cut in range(60, len(whole) - 12):
        context, drafted = whole[cut - 60 : cut], side.table.in_the_middle(whole[cut : cut + 12])
        num_safe += bounds.continue_text(context, drafted).tail.is_safe
        chain = first_chain(propose(bounds, context, drafted, **LIMITS))
        # The last tokens may become others where the text goes on.
        assert chain[:6] == whole[cut : cut + 6]
    assert num_safe > 0.9 * (len(whole) - 72)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=80, deadline=None)
@given(drafted=hard_bytes, data=st.data())
def test_whatever_the_context_candidates_say_what_was_drafted(name: str, drafted: bytes, data: st.DataObject) -> None:
    table = table_of(name)
    context = data.draw(st.lists(st.integers(-1, len(table) + 1), min_size=1, max_size=6))
    found = propose(boundaries_of(name), context, drafted, **LIMITS)
    assert found.tokens[0] == context[-1] and found.parents[0] == -1
    edges = list(zip(found.parents, found.tokens, strict=True))[1:]
    assert len(set(edges)) == len(edges), "siblings are distinct"
    assert all(parent < i for i, parent in enumerate(found.parents))
    for path in paths(found):
        assert drafted.startswith(table.in_the_middle(path)) and None not in map(table.piece, path)
    if name in SAYS_ALL:
        held = boundaries_of(name).continue_text(context, drafted[:512]).held
        assert table.in_the_middle(first_chain(found)) == drafted[: min(len(drafted), 512) - held]
        assert held <= 3


def test_an_empty_context_or_draft_proposes_nothing() -> None:
    assert propose(boundaries_of("gpt2"), [], b"a", **LIMITS) == Candidates((), ())
    assert propose(boundaries_of("gpt2"), [7], b"", **LIMITS) == Candidates((7,), (-1,))


@pytest.mark.parametrize("name", ["gpt2", "llama2", "bytes"])
def test_a_character_cut_in_two_is_held_back(name: str) -> None:
    bounds, context = boundaries_of(name), side_of(name).encode(b"say: ")
    for char in ("é", "中", "😀"):
        for cut in range(1, len(char.encode())):
            found = propose(bounds, context, b"ok " + char.encode()[:cut], **LIMITS)
            assert table_of(name).in_the_middle(first_chain(found)) == b"ok "
        whole = propose(bounds, context, b"ok " + char.encode(), **LIMITS)
        assert table_of(name).in_the_middle(first_chain(whole)) == f"ok {char}".encode()


@pytest.mark.parametrize("name", ["gpt2", "llama2", "bytes", "byt5"])
def test_a_character_that_the_target_has_begun_is_ended(name: str) -> None:
    table = table_of(name)
    begun = [table.ids_by_bytes[bytes([byte])][0] for byte in b"\xe4\xb8"]
    found = propose(boundaries_of(name), [*side_of(name).encode(b"x "), *begun], b"\xad y", **LIMITS)
    assert table.in_the_middle(first_chain(found)) == b"\xad y"
    assert propose(boundaries_of(name), begun[:1], b"\xb8", **LIMITS).tokens == (begun[0],), "not there yet"


def test_a_token_across_the_boundary_gives_two_chains() -> None:
    """The target has written "th", its tokenizer would have written "the": what is left of it, or the draft alone."""
    table, side, bounds = table_of("gpt2"), side_of("gpt2"), boundaries_of("gpt2")
    begun = [*side.encode(b"in"), table.ids_by_bytes[b" t"][0], table.ids_by_bytes[b"h"][0]]
    assert side.encode(b"in the ret")[1] == table.ids_by_bytes[b" the"][0]
    found = propose(bounds, begun, b"e return", **LIMITS)
    assert first_chain(found) == [table.ids_by_bytes[b"e"][0], *side.encode(b" return")]
    # Its tokenizer would write " thed" as " the" and "d", but "ed" as one token.
    thed = propose(bounds, begun, b"ed", **LIMITS)
    assert [table.in_the_middle(path) for path in paths(thed)] == [b"", b"e", b"ed", b"ed"]


def test_limits() -> None:
    context = side_of("gpt2").encode(b"x")
    found = propose(boundaries_of("gpt2"), context, b" a b c d e f", max_depth=3, max_nodes=99)
    assert len(found.tokens) == 4
    assert len(propose(boundaries_of("gpt2"), context, b" a b c d e f", max_depth=9, max_nodes=3).tokens) == 3


def test_the_end_comes_behind_all_of_the_text() -> None:
    draft, bounds, end = table_of("bytes"), boundaries_of("llama2"), table_of("llama2").eos[0]
    eos = draft.eos[0]
    written = drafted_text(draft, [*side_of("bytes").encode(b" end."), eos, *side_of("bytes").encode(b"no")])
    assert (written.data, written.end) == (b" end.", eos)
    context = side_of("llama2").encode(b"The")
    assert propose(bounds, context, written.data, **LIMITS, end=end).tokens[-1] == end
    assert end not in propose(bounds, context, written.data + "é".encode()[:1], **LIMITS, end=end).tokens
    assert end not in propose(bounds, context, b"x" * 600, **LIMITS, end=end).tokens
    assert propose(bounds, context, b"", **LIMITS, end=end).tokens == (context[-1], end)


def test_text_that_the_target_cannot_say_ends_the_draft() -> None:
    found = propose(boundaries_of("characters"), side_of("characters").encode(b"a"), "bħc".encode(), **LIMITS)
    assert table_of("characters").in_the_middle(found.tokens[1:]) == b"b"


def test_special_tokens_are_never_made_from_text() -> None:
    for name in MAKERS:
        found = propose(boundaries_of(name), side_of(name).encode(b"a"), b"</s> <s>", **LIMITS)
        assert all(table_of(name).roles[token] == Role.TEXT for token in found.tokens)


class Counting:
    """A MidText that counts the bytes given to it."""

    def __init__(self, side: MidText) -> None:
        self.table, self.splits, self._side, self.num_bytes = side.table, side.splits, side, 0

    def spell(self, data: bytes) -> list[int]:
        self.num_bytes += len(data)
        return self._side.spell(data)


@pytest.mark.parametrize("text", [" " * 10_000, "中国" * 3000, "the cat sat " * 900, "x" * 10_000, "\t" * 9000])
@pytest.mark.parametrize("name", ["gpt2", "llama2", "bytes"])
def test_the_cost_does_not_grow_with_the_context(name: str, text: str) -> None:
    counting = Counting(side_of(name))
    context = side_of(name).encode(text.encode())
    propose(Boundaries(counting), context, b" sat on", **LIMITS)
    assert counting.num_bytes <= 192 + 2 * len(b" sat on")
    last = context[-CONTEXT_TOKENS:]
    assert propose(boundaries_of(name), last, b" s", **LIMITS) == propose(boundaries_of(name), context, b" s", **LIMITS)


def test_a_step_takes_well_under_a_millisecond() -> None:
    """Issue 4 allows 0.3 ms of host time; ten times that, for a machine that is busy."""
    context = side_of("gpt2").encode("".join(corpus()[:200]).encode())
    spent = []
    for cut in range(len(context) - 200, len(context) - 10):
        start = time.perf_counter()
        propose(boundaries_of("gpt2"), context[:cut], table_of("gpt2").in_the_middle(context[cut : cut + 6]), 8, 16)
        spent.append(time.perf_counter() - start)
    assert sorted(spent)[len(spent) // 2] < 3e-3


@settings(deadline=None, max_examples=300)
@example(data=b"\xed\xa0")
@given(
    data=st.one_of(hard_bytes, st.binary(max_size=3), st.characters().map(lambda c: c.encode("utf-8", "ignore")[:-1]))
)
def test_incomplete_is_what_more_bytes_could_end(data: bytes) -> None:
    expected = [size for size in (1, 2, 3) if size <= len(data) and _begins_character(data[len(data) - size :])]
    assert incomplete(data) == max(expected, default=0)


def _begins_character(part: bytes) -> bool:
    """Tried: whether some more bytes make one character of it."""
    if 0x80 <= part[0] < 0xC0:
        return False
    more = (bytes([a, *([0x80] * n)]) for a in (0x80, 0x90, 0xA0) for n in range(3))
    return any(_is_character(part + tail) for tail in more)


def _is_character(data: bytes) -> bool:
    try:
        return len(data.decode()) == 1
    except UnicodeDecodeError:
        return False
