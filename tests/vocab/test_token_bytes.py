"""What tokens stand for, against what each tokenizer decodes."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from sglang_hetero_spec.vocab.alphabet import BYTE_TO_CHAR
from sglang_hetero_spec.vocab.errors import VocabError
from sglang_hetero_spec.vocab.roles import Role
from sglang_hetero_spec.vocab.token_bytes import TokenBytes, read_token_bytes
from tests.vocab import made_tokenizers
from tests.vocab.made_tokenizers import MAKERS, folder_of
from tests.vocab.sides import table_of
from tests.vocab.texts import texts


@cache
def tokenizer_of(name: str) -> Tokenizer:
    """name: of a maker, or a folder."""
    return Tokenizer.from_file(str((folder_of(name) if name in MAKERS else Path(name)) / "tokenizer.json"))


def shown(table: TokenBytes, ids: list[int]) -> str:
    """What a decoder shows; byte fallback shows a run of byte tokens that is no UTF-8 as one U+FFFD per byte."""
    if table.byte_level:
        return table.from_start(ids).decode("utf-8", "replace")
    name_of = tokenizer_of(str(table.folder)).id_to_token
    runs: list[list[bytes]] = [[]]
    for token_id in ids:
        if table.piece(token_id) is None:
            continue
        if name_of(token_id).startswith("<0x"):
            runs[-1].append(table.piece(token_id))
        else:
            runs += [[table.piece(token_id)], []]
    text = "".join(show_run(run) for run in runs)
    first = next((i for i in ids if table.piece(i) is not None), None)
    if first in table.at_start:
        text = table.at_start[first].decode() + text[len(table.piece(first).decode()) :]
    return text[min(len(text) - len(text.lstrip(" ")), table.strip_start) :]


def show_run(run: list[bytes]) -> str:
    try:
        return b"".join(run).decode()
    except UnicodeDecodeError:
        return "\ufffd" * len(run)


def test_the_alphabet_is_the_library_s() -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    assert sorted(BYTE_TO_CHAR.values()) == sorted(ByteLevel.alphabet())
    level = ByteLevel(add_prefix_space=False, use_regex=False)
    text = "".join(map(chr, range(0x800)))
    assert level.pre_tokenize_str(text)[0][0] == "".join(BYTE_TO_CHAR[byte] for byte in text.encode())


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_sequences_decode_to_their_bytes(name: str, data: st.DataObject) -> None:
    table = table_of(name)
    ids = data.draw(st.lists(st.integers(0, len(table) - 1), max_size=12))
    assert shown(table, ids) == tokenizer_of(name).decode(
        [i for i in ids if table.piece(i) is not None], skip_special_tokens=False
    )


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=60, deadline=None)
@given(text=texts)
def test_encoded_text_has_its_bytes(name: str, text: str) -> None:
    """With bos and an eos in it, which are no text."""
    table, tokenizer = table_of(name), tokenizer_of(name)
    ids = [*tokenizer.encode(text).ids, table.first(Role.EOS)]
    assert table.from_start(ids).decode("utf-8", "replace") == tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("name", ["gpt2", "llama3", "llama2", "gemma", "bytes", "byt5"])
def test_every_byte_can_be_said(name: str) -> None:
    assert {bytes([byte]) for byte in range(256)} - table_of(name).ids_by_bytes.keys() == set(), name


def test_roles() -> None:
    table = table_of("llama2")
    assert [table.first(role) for role in (Role.UNK, Role.BOS, Role.EOS, Role.PAD)] == [0, 1, 2, 3]
    assert table.eos == (2,) and table.names[2] == "</s>" and table.piece(2) is None
    assert table.at_start == {} and table.strip_start == 1
    other = table_of("llama3")
    assert other.first(Role.SPECIAL) == 1 and other.names[1] == "<|end|>"
    assert table.piece(-1) is None and table.piece(10**9) is None


def test_what_the_model_has_beyond_the_tokenizer_is_nothing(tmp_path: Path) -> None:
    table = read_token_bytes(folder_of("bytes"), vocab_size=320)
    assert len(table) == 320 and table.pieces[-1] is None and table.roles[-1] == Role.NOTHING


def rewritten(tmp_path: Path, name: str, **configs: dict) -> Path:
    parsed = json.loads((folder_of(name) / "tokenizer.json").read_text())
    made_tokenizers.write(tmp_path, parsed, made_tokenizers.ROLES)
    for file, content in configs.items():
        (tmp_path / f"{file}.json").write_text(json.dumps(content))
    return tmp_path


def test_several_ends_are_read_from_the_model_s_configuration(tmp_path: Path) -> None:
    folder = rewritten(tmp_path, "llama3", generation_config={"eos_token_id": [1, 2, 99999]})
    table = read_token_bytes(folder)
    assert table.eos == (2, 1), "the tokenizer's own first, and no id that is none"


def test_one_token_of_all_roles_is_the_end(tmp_path: Path) -> None:
    all_one = dict.fromkeys(made_tokenizers.ROLES, "</s>")
    table = read_token_bytes(rewritten(tmp_path, "gpt2", tokenizer_config=all_one))
    assert table.eos == (2,) and table.first(Role.BOS) is None and table.first(Role.PAD) is None


def test_a_pad_token_that_is_a_word_stays_a_word(tmp_path: Path) -> None:
    table = read_token_bytes(rewritten(tmp_path, "gpt2", tokenizer_config={"pad_token": "!", "eos_token": "</s>"}))
    assert table.ids_by_bytes[b"!"]


@pytest.mark.parametrize(
    "decoder", [None, {"type": "CTC", "pad_token": "x", "word_delimiter_token": "|", "cleanup": 1}]
)
def test_decoders_that_cannot_be_followed_are_refused(tmp_path: Path, decoder: dict | None) -> None:
    parsed = json.loads((folder_of("gpt2") / "tokenizer.json").read_text())
    made_tokenizers.write(tmp_path, parsed | {"decoder": decoder}, made_tokenizers.ROLES)
    with pytest.raises(VocabError, match="decoder"):
        read_token_bytes(tmp_path)


def test_a_file_that_the_library_cannot_load_is_refused(tmp_path: Path) -> None:
    parsed = json.loads((folder_of("gpt2") / "tokenizer.json").read_text())
    made_tokenizers.write(tmp_path, parsed | {"decoder": {"type": "Replace"}}, made_tokenizers.ROLES)
    with pytest.raises(VocabError, match="cannot be loaded"):
        read_token_bytes(tmp_path)


def test_wordpiece_is_refused_in_one_sentence() -> None:
    with pytest.raises(VocabError, match="'WordPiece'") as caught:
        read_token_bytes(made_tokenizers.wordpiece())
    assert "\n" not in str(caught.value)


def test_a_table_that_the_decoder_contradicts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang_hetero_spec.vocab import decoder_rule

    monkeypatch.setattr(decoder_rule, "from_alphabet", lambda token: token.encode())
    with pytest.raises(VocabError, match="as its decoder says"):
        read_token_bytes(folder_of("gpt2"))


def test_a_configuration_that_is_no_json_is_named(tmp_path: Path) -> None:
    folder = rewritten(tmp_path, "gpt2")
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(VocabError, match="tokenizer_config"):
        read_token_bytes(folder)
