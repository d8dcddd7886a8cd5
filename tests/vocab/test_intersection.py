"""Shared vocabulary by bytes."""

from __future__ import annotations

import itertools
import json
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sglang_hetero_spec.vocab import intersection_cache
from sglang_hetero_spec.vocab.intersection import NO_TOKEN, Intersection, Relation, compare, intersect
from sglang_hetero_spec.vocab.intersection_cache import cached_intersection
from sglang_hetero_spec.vocab.mid_text import MidText
from sglang_hetero_spec.vocab.roles import Role
from sglang_hetero_spec.vocab.token_bytes import read_token_bytes
from tests.vocab.made_tokenizers import MAKERS, ROLES, folder_of, write
from tests.vocab.sides import side_of, table_of

PAIRS = list(
    itertools.product(["gpt2", "llama3", "llama2", "gemma", "bytes", "byt5", "characters", "unigram"], repeat=2)
)


@cache
def shared(target: str, draft: str) -> Intersection:
    return intersect(side_of(target), side_of(draft))


def changed(tmp_path: Path, name: str, change, roles: dict[str, str] = ROLES, vocab_size: int | None = None) -> MidText:
    parsed = json.loads((folder_of(name) / "tokenizer.json").read_text())
    change(parsed)
    folder = Path(tmp_path)
    write(folder, parsed, roles)
    return MidText(read_token_bytes(folder, vocab_size))


@pytest.mark.parametrize(("target", "draft"), PAIRS)
def test_maps_agree_with_bytes_and_with_each_other(target: str, draft: str) -> None:
    found, ours, theirs = shared(target, draft), table_of(draft), table_of(target)
    assert found.draft_to_target.shape == (len(ours),) and found.target_to_draft.shape == (len(theirs),)
    assert {
        getattr(found, n).dtype for n in ("draft_to_target", "target_to_draft", "draft_ids", "spelled", "offsets")
    } == {np.dtype(np.int32)}
    assert found.draft_ids.tolist() == [i for i, t in enumerate(found.draft_to_target) if t != NO_TOKEN]
    targets = found.draft_to_target[found.draft_ids]
    assert len(set(targets.tolist())) == len(targets), "one-to-one"
    assert (found.target_to_draft[targets] == found.draft_ids).all(), "what is proposed is read as itself"
    for draft_id, target_id in zip(found.draft_ids, targets, strict=True):
        assert ours.pieces[draft_id] == theirs.pieces[target_id]
    same_bytes = {p for p in ours.ids_by_bytes if p in theirs.ids_by_bytes}
    assert {ours.pieces[i] for i in found.draft_ids if ours.pieces[i]} == same_bytes, "nothing is left out"
    assert found.shared_targets.sum() == len(targets)


@pytest.mark.parametrize(("target", "draft"), PAIRS)
def test_every_target_token_is_read_as_its_bytes(target: str, draft: str) -> None:
    found, ours, theirs = shared(target, draft), table_of(draft), table_of(target)
    unk = ours.first(Role.UNK)
    for target_id, piece in enumerate(theirs.pieces):
        read = found.read_as(target_id).tolist()
        if piece is not None and unk not in read:
            assert ours.in_the_middle(read) == piece
        if found.target_to_draft[target_id] != NO_TOKEN:
            assert found.offsets[target_id] == found.offsets[target_id + 1], "what is mapped is not spelled"
    assert found.offsets.shape == (len(theirs) + 1,) and found.offsets[-1] == len(found.spelled)


def test_the_ends_find_each_other_and_padding_is_not_proposed() -> None:
    found, ours, theirs = shared("llama2", "gpt2"), table_of("gpt2"), table_of("llama2")
    assert found.draft_to_target[ours.eos[0]] == theirs.eos[0] and found.target_to_draft[theirs.eos[0]] == ours.eos[0]
    for role in (Role.BOS, Role.PAD):
        assert found.draft_to_target[ours.first(role)] == NO_TOKEN
        assert found.target_to_draft[theirs.first(role)] == ours.first(role)
    assert found.target_to_draft[theirs.first(Role.UNK)] == NO_TOKEN, "gpt2 has no unknown token"


def renamed(names: dict[str, str]):
    def change(parsed: dict[str, Any]) -> None:
        for token in parsed["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        vocab = parsed["model"]["vocab"]
        for old, new in names.items():
            if old in vocab:
                vocab[new] = vocab.pop(old)
        parsed["post_processor"] = None

    return change


def test_ends_of_other_names(tmp_path: Path) -> None:
    """The drafter's </s> is the target's <|eot|>; its <|end|>, no end there, is the target's second end by name."""
    target = changed(tmp_path, "llama3", renamed({"</s>": "<|eot|>"}), ROLES | {"eos_token": "<|eot|>"})
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')
    target = MidText(read_token_bytes(tmp_path))
    assert target.table.eos == (2, 1)
    draft = side_of("llama3")
    found = intersect(target, draft)
    assert found.draft_to_target[[2, 1]].tolist() == [2, 1]
    one_end = intersect(target, side_of("gpt2"))
    assert one_end.target_to_draft[[2, 1]].tolist() == [2, 2], "any end of the target is read as the drafter's end"
    assert one_end.draft_to_target[2] == 2


def test_collisions_take_the_tokenizer_s_own_id() -> None:
    """llama2 has <0x61> and a; gpt2 has one token for both."""
    found, table = shared("gpt2", "llama2"), table_of("llama2")
    byte_token, letter = table.ids_by_bytes[b"a"]
    assert found.draft_to_target[byte_token] == NO_TOKEN and found.draft_to_target[letter] != NO_TOKEN
    back = shared("llama2", "gpt2")
    assert back.target_to_draft[byte_token] == back.target_to_draft[letter] != NO_TOKEN
    assert back.draft_to_target[back.target_to_draft[letter]] == letter


def test_no_common_token_is_no_error(tmp_path: Path) -> None:
    def letters_only(parsed: dict[str, Any]) -> None:
        parsed["model"] = parsed["model"] | {"vocab": {"</s>": 0, "ħ": 1}}
        parsed["added_tokens"] = []

    odd = changed(tmp_path, "characters", letters_only, {})
    for found in (intersect(odd, side_of("characters")), intersect(side_of("characters"), odd)):
        assert len(found.draft_ids) == 0 and found.target_percent == 0.0 and not found.shared_targets.any()


def test_non_ascii_is_shared_between_families() -> None:
    """Compared by their spelling, byte-level BPE and SentencePiece would share no such token."""
    found, table = shared("gpt2", "llama2"), table_of("llama2")
    pieces = [table.pieces[i] for i in found.draft_ids if table.pieces[i]]
    assert sum(not piece.isascii() for piece in pieces) > 20 and "中国".encode() in pieces


def test_overlap_in_percent_and_in_mass() -> None:
    found = shared("gpt2", "bytes")
    assert found.draft_percent == pytest.approx(100.0 * 257 / 259), "256 bytes and eos; bos and pad are only read"
    assert found.target_percent == pytest.approx(100.0 * 257 / len(table_of("gpt2")))
    counts = np.zeros((3, len(table_of("gpt2")) + 5))
    only_there = table_of("gpt2").ids_by_bytes[b" the"][0]
    counts[:, table_of("gpt2").ids_by_bytes[b"a"][0]] = 1.0
    counts[:, only_there] = 2.0
    counts[:, -1] = 1.0
    assert found.covered_mass(counts) == pytest.approx(0.25)
    assert found.covered_mass(np.zeros(len(table_of("gpt2")), np.int64)) == 0.0


@pytest.mark.parametrize("name", MAKERS)
def test_identical(name: str) -> None:
    found = shared(name, name)
    assert (found.relation, found.first_difference) == (Relation.IDENTICAL, NO_TOKEN)


def test_padding_is_no_difference(tmp_path: Path) -> None:
    def more(parsed: dict[str, Any]) -> None:
        token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        parsed["added_tokens"].append(token | {"id": len(table_of("gpt2")), "content": "<|extra|>", "special": True})

    extra = changed(tmp_path, "gpt2", more)
    wide = read_token_bytes(folder_of("gpt2"), len(table_of("gpt2")) + 64)
    for other in (extra.table, wide):
        assert compare(other, table_of("gpt2")) == (Relation.PADDED, NO_TOKEN)
        assert compare(table_of("gpt2"), other) == (Relation.PADDED, NO_TOKEN)


def swap(parsed: dict[str, Any]) -> None:
    vocab = parsed["model"]["vocab"]
    (one, i), (other, j) = list(vocab.items())[300], list(vocab.items())[17]
    vocab[one], vocab[other] = j, i


def test_a_permuted_vocabulary_is_seen_and_mapped_back(tmp_path: Path) -> None:
    draft = changed(tmp_path, "gpt2", swap)
    found = intersect(side_of("gpt2"), draft)
    moved = np.flatnonzero(found.draft_to_target[found.draft_ids] != found.draft_ids)
    assert found.relation is Relation.PERMUTED and len(moved) == 2
    assert found.first_difference == found.draft_ids[moved[0]]
    assert {draft.table.pieces[i] for i in found.draft_ids if draft.table.pieces[i]} == set(draft.table.ids_by_bytes)


def test_one_other_token_is_a_difference(tmp_path: Path) -> None:
    draft = changed(tmp_path, "characters", renamed({"q": "ħ"}))
    relation, first = compare(draft.table, table_of("characters"))
    assert relation is Relation.DIFFERENT and draft.table.pieces[first] == "ħ".encode()


def same(one: Intersection, other: Intersection) -> bool:
    return all(np.array_equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))


def test_cached_and_again_after_any_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, draft = side_of("llama2"), side_of("gpt2")
    made = cached_intersection(target, draft, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()

    def never(*_: object) -> Intersection:
        raise AssertionError("made again")

    with monkeypatch.context() as patch:
        patch.setattr(intersection_cache, "intersect", never)
        found = cached_intersection(target, draft, tmp_path / "cache")
        assert same(found, made) and type(found.relation) is Relation and type(found.num_draft) is int
        assert found.draft_ids.dtype == np.int32
    for damaged in (b"", whole[:20], whole[:-1], whole[:5000] + b"?" + whole[5001:], b"\0" * len(whole)):
        file.write_bytes(damaged)
        assert same(cached_intersection(target, draft, tmp_path / "cache"), made)
        assert file.read_bytes() == whole


def test_the_cache_knows_all_that_the_maps_depend_on(tmp_path: Path) -> None:
    """The same id map with another end, other merges, or more ids in the model."""
    cached_intersection(side_of("gpt2"), side_of("gpt2"), tmp_path / "cache")
    (tmp_path / "end").mkdir()
    (tmp_path / "merges").mkdir()
    other_end = changed(tmp_path / "end", "gpt2", lambda parsed: None, ROLES | {"eos_token": "<pad>"})
    no_merges = changed(tmp_path / "merges", "gpt2", lambda parsed: parsed["model"].update(merges=[]))
    wide = MidText(read_token_bytes(folder_of("gpt2"), 2000))
    for draft in (other_end, no_merges, wide):
        assert same(cached_intersection(side_of("gpt2"), draft, tmp_path / "cache"), intersect(side_of("gpt2"), draft))
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_a_disk_that_refuses_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = cached_intersection(side_of("gpt2"), side_of("bytes"), tmp_path / "file" / "cache")
    assert len(found.draft_ids) == 257
