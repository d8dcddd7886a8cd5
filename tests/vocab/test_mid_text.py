"""Tokenisation in the middle of a text, against the tokenizer itself behind an anchor."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from tokenizers import Tokenizer

from tests.vocab.made_tokenizers import MAKERS, folder_of
from tests.vocab.sides import side_of, table_of
from tests.vocab.texts import hard_bytes, texts

SAYS_ALL = ["gpt2", "llama3", "llama2", "gemma", "bytes", "byt5"]


@pytest.mark.parametrize("name", SAYS_ALL)
@settings(max_examples=60, deadline=None)
@given(data=hard_bytes)
def test_all_bytes_come_back(name: str, data: bytes) -> None:
    side = side_of(name)
    assert side.table.in_the_middle(side.encode(data)) == data
    assert side.spell(data) == side.encode(data)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=60, deadline=None)
@given(data=hard_bytes)
def test_spelling_stops_where_the_vocabulary_does(name: str, data: bytes) -> None:
    side = side_of(name)
    spelled = side.spell(data)
    assert data.startswith(side.table.in_the_middle(spelled))
    assert all(piece is not None for piece in map(side.table.piece, spelled))


@pytest.mark.parametrize("name", ["gpt2", "llama3", "bytes", "byt5", "gemma", "demo"])
@settings(max_examples=60, deadline=None)
@given(text=texts)
def test_without_a_prefix_rule_it_is_the_tokenizer(name: str, text: str) -> None:
    tokenizer = Tokenizer.from_file(str(folder_of(name) / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    if name == "gemma":
        text = text.replace("▁", "")
    assert side_of(name).encode(text.encode()) == tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", ["llama2", "metaspace", "unigram"])
@settings(max_examples=60, deadline=None)
@given(text=texts)
def test_with_one_a_space_does_what_the_prefix_does(name: str, text: str) -> None:
    """Text that begins with a space of its own gets no second one. U+2581 itself is read as a space there, here not."""
    for sign in ("▁", "<s>", "</s>"):  # Unigram reads its special tokens from text
        text = text.replace(sign, "")
    if text.startswith(" ") or not text:
        return
    tokenizer = Tokenizer.from_file(str(folder_of(name) / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    assert side_of(name).encode(f" {text}".encode()) == tokenizer.encode(text, add_special_tokens=False).ids


def test_no_bos_no_prefix_space_no_special_tokens() -> None:
    for name in ("llama2", "gpt2", "unigram"):
        ids = side_of(name).encode(b"a</s>")
        assert table_of(name).first(3) not in ids and table_of(name).piece(ids[0])[:1] == b"a", name


def test_the_tokenizer_s_own_id_is_canonical_then_the_lowest() -> None:
    table, side = table_of("llama2"), side_of("llama2")
    byte_token, letter = table.ids_by_bytes[b"a"]
    assert byte_token < letter == side.canonical(b"a")
    assert side.canonical(b"\xff") == table.ids_by_bytes[b"\xff"][0] and side.canonical(b"no such token") is None
