"""What --candidates and the shapes mean."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sglang_hetero_spec.build.profile.candidates import Candidate, find_candidates, parse_shapes
from sglang_hetero_spec.build.profile.checked import check
from sglang_hetero_spec.build.profile.measure import name_entries
from sglang_hetero_spec.build.profile.records import ProfileError, Settings
from sglang_hetero_spec.ngram.files import write_corpus
from tests.build.profile.conftest import Files
from tests.support.manifest import write_manifest

CHAIN, TREE = Settings(5, 1, 6), Settings(3, 2, 6)


def test_checkpoints_folders_and_pools(files: Files, tmp_path: Path) -> None:
    a, b = files.drafters / "a", files.drafters / "b"
    drafters = [
        {"name": "mine", "kind": "standalone", "path": str(a), "external": True, "num_steps": 2},
        {"name": "off", "kind": "none"},
    ]
    pool = write_manifest(tmp_path / "pool", drafters, fallback="off")
    found = find_candidates([str(files.drafters), f"other={b}", str(pool)], (CHAIN, TREE))
    assert [(one.drafter, one.settings, one.path) for one in found] == [
        ("a", CHAIN, a), ("a", TREE, a), ("b", CHAIN, b), ("b", TREE, b), ("other", CHAIN, b), ("other", TREE, b),
        ("mine", Settings(2, 1, 3), a),
    ]  # fmt: skip
    good, left_out = check(found, str(files.target), tmp_path)
    assert {one.vocab for one in found} == {"auto", "shared"}
    assert good == [replace(one, vocab="shared") for one in found] and left_out == []
    assert list(name_entries(found))[:3] == ["none", "1.a", "2.a"]


def test_a_damaged_checkpoint_is_left_out_by_name(files: Files, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text((files.target / "config.json").read_text())
    found = find_candidates([str(tmp_path / "empty"), str(files.drafters / "a")], (CHAIN,))
    (tmp_path / "pool").mkdir()
    good, (left_out,) = check(found, str(files.target), tmp_path / "pool")
    assert [one.drafter for one in good] == ["a"]
    assert left_out.reason.startswith(f"`path` is {tmp_path / 'empty'}, which has no *.safetensors file")


def test_what_is_no_candidate(files: Files, tmp_path: Path) -> None:
    a, b = files.drafters / "a", files.drafters / "b"
    with pytest.raises(
        ProfileError, match=r"is no pool \(pool\.json\), no checkpoint \(config\.json\), no adapter \(adapter_config"
    ):
        find_candidates([str(tmp_path / "nowhere")], (CHAIN,))
    with pytest.raises(ProfileError, match="`a` is both"):
        find_candidates([str(a), f"a={b}"], (CHAIN,))
    with pytest.raises(ProfileError, match="`none` means no drafter"):
        find_candidates([f"none={b}"], (CHAIN,))
    pool = write_manifest(tmp_path / "pool", [{"name": "off", "kind": "none"}], fallback="off")
    with pytest.raises(ProfileError, match="has no drafter but `none`"):
        find_candidates([str(pool)], (CHAIN,))
    (pool / "pool.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(ProfileError, match="`format` is"):
        find_candidates([str(pool)], (CHAIN,))


def test_a_candidate_keeps_the_keys_of_its_kind() -> None:
    """Also one without files."""
    candidate = Candidate("copies", TREE, None, kind="ngram", extra=(("capacity", 1000),))
    assert candidate.entry("1.copies") == {
        "name": "1.copies", "kind": "ngram", "vocab": "shared", **TREE._asdict(), "capacity": 1000
    }  # fmt: skip
    assert str(candidate) == "copies (3/2/6)" and hash(candidate)


def test_ngram_drafters(files: Files, tmp_path: Path) -> None:
    """From a pool, with or without files, and a corpus by itself."""
    write_corpus(corpus := _folder(tmp_path / "corpus"), [[1, 2, 3]])
    shape = {"num_steps": 3, "topk": 2, "num_draft_tokens": 6}
    drafters = [
        {"name": "plain", "kind": "ngram", **shape, "capacity": 5000},
        {"name": "filled", "kind": "ngram", "path": str(corpus), "external": True, **shape},
    ]
    pool = write_manifest(tmp_path / "pool", drafters, fallback="plain")
    found = find_candidates([str(pool), f"mine={corpus}"], (CHAIN,))
    assert [(one.drafter, one.kind, one.path, one.settings, one.extra) for one in found] == [
        ("plain", "ngram", None, TREE, (("capacity", 5000),)),
        ("filled", "ngram", corpus, TREE, ()),
        ("mine", "ngram", corpus, CHAIN, ()),
    ]
    good, left_out = check(found, str(files.target), _folder(tmp_path / "checked"))
    assert good == list(found) and left_out == []
    (corpus / "corpus.safetensors").write_bytes(b"rubbish")
    good, left_out = check(found, str(files.target), tmp_path / "checked")
    assert [one.drafter for one in good] == ["plain"]
    assert all("is no corpus but something else" in one.reason for one in left_out)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_shapes() -> None:
    assert parse_shapes([5], [1], None) == (CHAIN,)
    assert parse_shapes([5, 3], [1], None) == (CHAIN, Settings(3, 1, 4))
    assert parse_shapes([3, 3], [2], [6, 4]) == (TREE, Settings(3, 2, 4))


@pytest.mark.parametrize(
    ("steps", "topk", "tokens", "says"),
    [
        ([5, 3], [1, 1, 1], None, "--num-steps has 2 numbers where another has 3"),
        ([65], [1], None, "--num-steps 65 cannot be"),
        ([5], [33], None, "--topk 33 cannot be"),
        ([5], [1], [5], "--num-draft-tokens 5 does not go with a chain of 5 steps, which has 6"),
        ([3], [2], None, "--num-draft-tokens is missing; a tree of 3 steps and topk 2 needs"),
        ([3], [2], [100], "--num-draft-tokens is 100; a tree of 3 steps"),
    ],
)
def test_shapes_that_cannot_be(steps: list[int], topk: list[int], tokens: list[int] | None, says: str) -> None:
    with pytest.raises(ProfileError, match=says):
        parse_shapes(steps, topk, tokens)
