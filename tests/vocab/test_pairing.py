"""Two tokenizers and what they share: read together, kept on disk, refused where a tokenizer is not its model's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sglang_hetero_spec.vocab import intersection_cache
from sglang_hetero_spec.vocab.errors import VocabError
from sglang_hetero_spec.vocab.intersection import Intersection, intersect
from sglang_hetero_spec.vocab.pairing import CACHE_VARIABLE, cache_folder, pair, read_side
from tests.vocab.made_tokenizers import folder_of
from tests.vocab.sides import side_of


def same(one: Intersection, other: Intersection) -> bool:
    arrays = ("draft_to_target", "target_to_draft", "draft_ids", "spelled", "offsets")
    rest = ("num_target", "num_draft", "relation", "first_difference")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays) and all(
        getattr(one, name) == getattr(other, name) for name in rest
    )


def test_a_pair_is_both_sides_and_what_they_share(tmp_path: Path) -> None:
    found = pair(folder_of("gpt2"), folder_of("llama2"), cache=tmp_path)
    assert (found.target.table.folder, found.draft.table.folder) == (folder_of("gpt2"), folder_of("llama2"))
    assert same(found.shared, intersect(side_of("gpt2"), side_of("llama2")))


def test_what_is_shared_is_kept_and_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pair(folder_of("gpt2"), folder_of("byt5"), cache=tmp_path).shared
    monkeypatch.setattr(intersection_cache, "intersect", lambda *_: pytest.fail("made again"))
    assert same(pair(folder_of("gpt2"), folder_of("byt5"), cache=tmp_path).shared, first)


def test_a_target_is_read_once_for_many_drafters_and_again_when_it_changes(tmp_path: Path) -> None:
    folder = tmp_path / "target"
    shutil.copytree(folder_of("gpt2"), folder)
    first, second = (pair(folder, folder_of(name), cache=tmp_path / "cache") for name in ("byt5", "bytes"))
    assert first.target is second.target and first.draft is not second.draft
    assert read_side(folder, 5000) is not first.target
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 1}))
    assert read_side(folder).table.eos != first.target.table.eos


def test_the_models_may_have_more_ids_than_their_tokenizers(tmp_path: Path) -> None:
    target, draft = len(side_of("gpt2").table), len(side_of("byt5").table)
    more = {"target_vocab_size": target + 9, "draft_vocab_size": draft + 5, "cache": tmp_path}
    found = pair(folder_of("gpt2"), folder_of("byt5"), **more).shared
    assert (len(found.target_to_draft), len(found.draft_to_target)) == (target + 9, draft + 5)
    assert (found.target_to_draft[target:] == -1).all() and (found.draft_to_target[draft:] == -1).all()


@pytest.mark.parametrize("side", ["target_vocab_size", "draft_vocab_size"])
def test_a_tokenizer_with_more_ids_than_its_model(tmp_path: Path, side: str) -> None:
    name = "gpt2" if side.startswith("target") else "byt5"
    size = len(side_of(name).table)
    pair(folder_of("gpt2"), folder_of("byt5"), cache=tmp_path, **{side: size})
    with pytest.raises(VocabError) as caught:
        pair(folder_of("gpt2"), folder_of("byt5"), cache=tmp_path, **{side: size - 1})
    assert str(caught.value) == (
        f"{folder_of(name)}/tokenizer.json has the token id {size - 1}, and the model has {size - 1} ids at most: it is"
        " the tokenizer of another model; put the one that the model was trained with there."
    )


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(VocabError, match=r"tokenizer.json is missing; put the tokenizer that the model was trained"):
        pair(folder_of("gpt2"), tmp_path)


def test_an_id_that_would_only_take_the_memory(tmp_path: Path) -> None:
    folder = tmp_path / "draft"
    shutil.copytree(folder_of("byt5"), folder)
    parsed = json.loads((folder / "tokenizer.json").read_text())
    parsed["added_tokens"].append({**parsed["added_tokens"][0], "id": 10**12, "content": "<far>"})
    (folder / "tokenizer.json").write_text(json.dumps(parsed))
    with pytest.raises(VocabError, match="has the token id 1000000000000, and the model has 16777216 ids at most"):
        read_side(folder)


@pytest.mark.parametrize("damage", [[], {}, 3])
def test_a_tokenizer_that_only_the_library_understands(tmp_path: Path, damage: object) -> None:
    """It takes what it does not know for something else, and has its own idea of the decoder."""
    folder = tmp_path / "draft"
    shutil.copytree(folder_of("llama2"), folder)
    parsed = json.loads((folder / "tokenizer.json").read_text())
    parsed["decoder"]["decoders"][0]["type"] = damage
    (folder / "tokenizer.json").write_text(json.dumps(parsed))
    with pytest.raises(VocabError) as caught:
        read_side(folder)
    assert str(caught.value).startswith(f"{folder}/tokenizer.json ") and str(caught.value).endswith(".")


@pytest.mark.parametrize("is_read_only", [False, True])
def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, is_read_only: bool, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Path("/proc/nothing") if is_read_only else tmp_path / "file" / "below"
    if not is_read_only:
        (tmp_path / "file").write_text("in the way")
    found = pair(folder_of("gpt2"), folder_of("byt5"), cache=cache).shared
    assert same(found, intersect(side_of("gpt2"), side_of("byt5")))
    assert "cannot be written" in caplog.text


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    pair(folder_of("gpt2"), folder_of("byt5"))
    assert [path.suffix for path in (tmp_path / "mine").iterdir()] == [".npz"]
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/hetero-spec")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert cache_folder() == Path("/h/.cache/hetero-spec")


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert cache_folder() is None
    assert same(pair(folder_of("gpt2"), folder_of("byt5")).shared, intersect(side_of("gpt2"), side_of("byt5")))
