"""Drafters with a vocabulary of their own: which mode they are served in, and what is refused before a model loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fake_pool import FakePool, write_json, write_tokenizer
from foreign_pool import ForeignPool, num_ids, permute, put_model, read, write_size

from sglang_hetero_spec.pool import DrafterSpec, load_pool, local_folder, tokenizer_sha256, write_pool_manifest
from sglang_hetero_spec.vocab import pairing
from sglang_hetero_spec.vocab.intersection import Relation
from sglang_hetero_spec.vocab.psi import MAX_SEQUENCES, count_sequences
from sglang_hetero_spec.vocab.token_bytes import read_token_bytes

FOREIGN = ("tli", "slem", "slrs", "auto")
OTHER_MODEL = "the tokenizer of another model; put the one that the model was trained with there."


@pytest.fixture
def foreign(tmp_path: Path) -> ForeignPool:
    return ForeignPool(tmp_path)


def loaded(pool: FakePool, target: Path | str | None = None) -> DrafterSpec:
    pool.write()
    return load_pool(pool.root, target=target).drafters[0]


@pytest.mark.parametrize("vocab", FOREIGN[:3])
def test_a_mode_by_name_is_served_with_its_overlap(tmp_path: Path, vocab: str) -> None:
    pool = ForeignPool(tmp_path, "bytes", vocab=vocab)
    found = loaded(pool, pool.target)
    assert (found.vocab, found.auto_reason) == (vocab, None)
    assert found.overlap is not None and 0 < found.overlap.target_percent < found.overlap.draft_percent < 100
    assert (found.num_steps, found.topk, found.num_draft_tokens) == (4, 1, 5)


@pytest.mark.parametrize("nodes", [2, 5, 128])
def test_slem_has_any_number_of_nodes(foreign: ForeignPool, nodes: int) -> None:
    foreign.entry.update(vocab="slem", num_draft_tokens=nodes)
    assert loaded(foreign, foreign.target).num_draft_tokens == nodes


def test_tli_drafts_trees(foreign: ForeignPool) -> None:
    foreign.entry.update(topk=4, num_draft_tokens=16)
    assert loaded(foreign, foreign.target).topk == 4


def test_auto_takes_the_targets_own_vocabulary_for_shared(tmp_path: Path) -> None:
    pool = ForeignPool(tmp_path, "gpt2", vocab="auto")
    found = loaded(pool, pool.target)
    assert (found.vocab, found.overlap) == ("shared", None)
    assert found.auto_reason == "its vocabulary is the target's"


def test_auto_takes_padding_for_shared(tmp_path: Path) -> None:
    pool = ForeignPool(tmp_path, "gpt2", vocab="auto")
    write_size(pool.folder, 5000)
    parsed = read(pool.folder / "tokenizer.json")
    last = parsed["added_tokens"][-1]
    parsed["added_tokens"].append({**last, "id": num_ids(pool.folder), "content": "<more>"})
    write_json(pool.folder / "tokenizer.json", parsed)
    assert loaded(pool, pool.target).vocab == "shared"


def test_auto_does_not_take_an_embedding_that_is_too_small_for_shared(tmp_path: Path) -> None:
    """The drafter lacks the target's last added token: it could not read it."""
    pool = ForeignPool(tmp_path, "gpt2", vocab="auto")
    parsed = read(pool.folder / "tokenizer.json")
    last = max(token["id"] for token in parsed["added_tokens"])
    parsed["added_tokens"] = [token for token in parsed["added_tokens"] if token["id"] != last]
    parsed["model"]["vocab"] = {token: i for token, i in parsed["model"]["vocab"].items() if i != last}
    write_json(pool.folder / "tokenizer.json", parsed)
    write_size(pool.folder, last)
    assert loaded(pool, pool.target).vocab == "tli"
    write_size(pool.folder, last + 1)
    assert loaded(pool, pool.target).vocab == "shared"


def test_a_permuted_vocabulary_is_not_shared_and_is_mapped(tmp_path: Path) -> None:
    pool = ForeignPool(tmp_path, "gpt2", vocab="shared")
    permute(pool.folder)
    assert "token ids do not mean what they do in the target" in pool.refusal(target=pool.target)
    for vocab in ("auto", "tli"):
        pool.entry["vocab"] = vocab
        found = loaded(pool, pool.target)
        assert found.vocab == "tli" and found.overlap is not None
        assert found.overlap.relation == Relation.PERMUTED and found.overlap.target_percent > 99


def test_auto_is_slem_where_little_is_shared_and_tli_where_what_the_target_writes_is(tmp_path: Path) -> None:
    pool = ForeignPool(tmp_path, "bytes", vocab="auto")
    assert loaded(pool, pool.target).vocab == "slem"
    pool.write_examples("0 1 2 3 4 5")
    found = loaded(pool, pool.target)
    assert found.vocab == "slem" and "less than the 95% that `tli` takes" in str(found.auto_reason)
    pool.write_examples("!")
    found = loaded(pool, pool.target)
    assert found.vocab == "tli", "tasks.json changed, so the mode is found again"
    assert found.auto_reason == "it shares 100.0% of the tokens in the tasks' example prompts, at least 95%"


@pytest.mark.parametrize("draft", ["bytes", "byt5", "characters"])
def test_auto_is_never_slrs(tmp_path: Path, draft: str) -> None:
    """Where slrs can be: short tokens, and little that TLI could propose."""
    pool = ForeignPool(tmp_path, draft, vocab="slrs")
    assert loaded(pool, pool.target).vocab == "slrs"
    pool.entry["vocab"] = "auto"
    assert loaded(pool, pool.target).vocab == "slem"


@pytest.mark.parametrize("target", [None, "organisation/model"])
@pytest.mark.parametrize("vocab", FOREIGN)
def test_what_needs_the_target_is_left_open_without_it(foreign: ForeignPool, vocab: str, target: str | None) -> None:
    foreign.entry["vocab"] = vocab
    found = loaded(foreign, target)
    assert (found.vocab, found.overlap, found.auto_reason, found.num_draft_tokens) == (vocab, None, None, 5)


def test_the_manifest_keeps_auto_and_the_written_pool_knows_its_mode(foreign: ForeignPool) -> None:
    foreign.entry["vocab"] = "auto"
    written = write_pool_manifest(
        foreign.root, target=foreign.target, drafters=[foreign.entry], fallback_drafter="draft"
    )
    assert written.drafters[0].vocab == "slem" and load_pool(foreign.root, target=foreign.target) == written
    assert read(foreign.manifest_path)["drafters"][0]["vocab"] == "auto"
    assert written.drafters[0].tokenizer_sha256 == tokenizer_sha256(foreign.folder)


def test_a_mode_is_found_once_in_a_process(foreign: ForeignPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server loads its pool several times; tables of a large vocabulary take seconds."""
    first = loaded(foreign, foreign.target)
    monkeypatch.setattr(pairing, "read_side", lambda *_: pytest.fail("read again"))
    assert loaded(foreign, foreign.target) == first


@pytest.mark.parametrize("vocab", FOREIGN)
def test_missing_tokenizer(foreign: ForeignPool, vocab: str) -> None:
    """Also where the target is not here: the drafter cannot do without."""
    foreign.entry["vocab"] = vocab
    (foreign.folder / "tokenizer.json").unlink()
    for target in (None, foreign.target):
        assert foreign.refusal(target=target) == (
            f"{foreign.folder}/tokenizer.json is missing; put the tokenizer that the model was trained with there."
        )


@pytest.mark.parametrize("vocab", FOREIGN)
def test_target_without_a_tokenizer(foreign: ForeignPool, vocab: str) -> None:
    foreign.entry["vocab"] = vocab
    (foreign.target / "tokenizer.json").unlink()
    assert foreign.refusal(target=foreign.target) == (
        f"{foreign.field}, but the target {foreign.target} has no tokenizer.json to compare with; save it there with"
        " transformers."
    )


@pytest.mark.parametrize("vocab", FOREIGN)
@pytest.mark.parametrize("has_target", [False, True])
def test_more_ids_than_embeddings(foreign: ForeignPool, vocab: str, has_target: bool) -> None:
    foreign.entry["vocab"] = vocab
    last = num_ids(foreign.folder) - 1
    write_size(foreign.folder, last + 1)
    loaded(foreign)
    write_size(foreign.folder, last)
    assert foreign.refusal(target=foreign.target if has_target else None) == (
        f"{foreign.folder}/tokenizer.json has the token id {last}, and {foreign.folder}/config.json has a"
        f" `vocab_size` of {last}: it is {OTHER_MODEL}"
    )


def test_a_target_with_more_ids_than_embeddings(foreign: ForeignPool) -> None:
    """A drafter would propose ids that the target's logits do not have."""
    size = num_ids(foreign.target)
    write_size(foreign.target, size - 1)
    assert foreign.refusal(target=foreign.target) == (
        f"{foreign.field}, but {foreign.target}/tokenizer.json has the token id {size - 1}, and the model has"
        f" {size - 1} ids at most: it is {OTHER_MODEL}"
    )


@pytest.mark.parametrize("vocab", FOREIGN)
def test_the_targets_tokenizer_in_the_folder_of_a_drafter_with_another(tmp_path: Path, vocab: str) -> None:
    """All that the folder says beside tokenizer.json is the drafter's: its size, its end, its added tokens."""
    pool = ForeignPool(tmp_path, "bytes", vocab=vocab)
    shutil.copy(pool.target / "tokenizer.json", pool.folder)
    assert "it is the tokenizer of another model" in pool.refusal(target=pool.target)


@pytest.mark.parametrize("vocab", ["shared", "tli", "auto"])
def test_an_end_of_text_that_the_tokenizer_does_not_have(tmp_path: Path, vocab: str) -> None:
    pool = ForeignPool(tmp_path, "gpt2", vocab=vocab)
    last = num_ids(pool.folder)
    for eos in (last + 10, [last + 10, last + 11]):
        write_size(pool.folder, 5000, eos_token_id=eos)
        assert pool.refusal() == (
            f"{pool.folder}/config.json ends a text with token {last + 10}, which {pool.folder}/tokenizer.json has not:"
            f" it is {OTHER_MODEL}"
        )
    for eos in (0, None, -1, [last + 10, 2], 6000):  # 6000: beyond the embedding, a default that nobody set
        write_size(pool.folder, 5000, eos_token_id=eos)
        loaded(pool)


@pytest.mark.parametrize("vocab", ["shared", "tli"])
def test_added_tokens_that_the_tokenizer_calls_otherwise(tmp_path: Path, vocab: str) -> None:
    pool = ForeignPool(tmp_path, "gpt2", vocab=vocab)
    write_json(pool.folder / "tokenizer_config.json", {"added_tokens_decoder": {"1": {"content": "<|im_end|>"}}})
    assert pool.refusal() == (
        f'{pool.folder}/tokenizer.json has "<s>" as token 1, which tokenizer_config.json calls "<|im_end|>": it is'
        f" {OTHER_MODEL}"
    )
    same_or_more = {"1": {"content": "<s>"}, "4000": {"content": "<more>"}, "x": 1, "2": None}
    write_json(pool.folder / "tokenizer_config.json", {"added_tokens_decoder": same_or_more, "eos_token": "<more>"})
    write_size(pool.folder, 5000)
    loaded(pool)


@pytest.mark.parametrize("eos", ["<|im_end|>", {"content": "<|im_end|>"}])
def test_an_end_of_text_of_another_name(foreign: ForeignPool, eos: object) -> None:
    write_json(foreign.folder / "tokenizer_config.json", {"eos_token": eos})
    assert foreign.refusal() == (
        f'{foreign.folder}/tokenizer.json has no token "<|im_end|>", the `eos_token` of tokenizer_config.json: it is'
        f" {OTHER_MODEL}"
    )


def test_wrong_tokenizer_hash(foreign: ForeignPool) -> None:
    """A tokenizer of the same size and the same specials: the hash tells."""
    foreign.entry["tokenizer_sha256"] = tokenizer_sha256(foreign.folder)
    loaded(foreign, foreign.target)
    permute(foreign.folder)
    assert "`drafters[0].tokenizer_sha256` is" in foreign.refusal(target=foreign.target)


@pytest.mark.parametrize("vocab", FOREIGN)
def test_a_tokenizer_that_cannot_be_followed(foreign: ForeignPool, vocab: str) -> None:
    foreign.entry["vocab"] = vocab
    (foreign.folder / "tokenizer_config.json").unlink()
    write_tokenizer(foreign.folder)
    message = foreign.refusal(target=foreign.target)
    assert message.startswith(f"{foreign.field}, but {foreign.folder}/tokenizer.json has no decoder, so that nobody")


def test_slrs_with_long_draft_tokens_is_refused_with_the_bound(foreign: ForeignPool) -> None:
    foreign.entry["vocab"] = "slrs"
    message = foreign.refusal(target=foreign.target)
    needed = count_sequences(*(read_token_bytes(folder).pieces for folder in (foreign.folder, foreign.target)))
    assert message.startswith(f"{foreign.field}, but string-level rejection sampling (`slrs`) would take ")
    assert f" {needed.all_tokens} or more " in message and f" {MAX_SEQUENCES} are allowed; use a drafter " in message


def test_tli_without_a_shared_token(foreign: ForeignPool) -> None:
    put_model(foreign.target, "characters")
    parsed = read(foreign.folder / "tokenizer.json")
    parsed["model"].update(vocab={"<unk>": 0, "<0x00>": 1}, merges=[])
    parsed["added_tokens"], parsed["post_processor"] = parsed["added_tokens"][:1], None
    write_json(foreign.folder / "tokenizer.json", parsed)
    write_json(foreign.folder / "tokenizer_config.json", {})
    message = foreign.refusal(target=foreign.target)
    assert f"no token of {foreign.folder} stands for the same bytes as one of the target" in message
    foreign.entry["vocab"] = "auto"
    assert loaded(foreign, foreign.target).vocab == "slem"


def test_a_cache_that_cannot_be_written_costs_only_time(foreign: ForeignPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HETERO_SPEC_CACHE", "/proc/nothing/here")
    assert loaded(foreign, foreign.target).overlap is not None


def test_the_folder_of_a_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the hub's library lays it out; nothing is asked of the network."""
    home, commit = tmp_path / "models--org--name", "c" * 40
    snapshot = home / "snapshots" / commit
    write_json(snapshot / "tokenizer.json", {})
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert local_folder("org/name") == local_folder("org/name", "main") == local_folder("org/name", commit) == snapshot
    for name in ("org/other", "no/name/of/this/kind", "x" * 5000, None):
        assert local_folder(name) is None
    assert local_folder("org/name", "v2") is None
    assert local_folder(str(snapshot)) == local_folder(snapshot) == snapshot


def test_the_overlap_is_written_as_json(foreign: ForeignPool) -> None:
    found = loaded(foreign, foreign.target).overlap
    assert found is not None
    assert json.loads(json.dumps(found.as_dict()))["relation"] == "different"
