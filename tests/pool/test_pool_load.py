"""What a good pool becomes, and what a few hand-written lines are enough for."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from fake_pool import FakePool, write_checkpoint, write_json, write_tokenizer, write_weights

from sglang_hetero_spec.pool import DrafterSpec, TaskSpec, file_sha256, load_pool, tokenizer_sha256, weights_sha256


def test_every_field_is_read(pool: FakePool) -> None:
    loaded = load_pool(pool.root, target=pool.target)
    assert loaded.root == pool.root.resolve()
    assert loaded.target.name_or_path == "tiny"
    assert loaded.drafters == (
        DrafterSpec("code", "standalone", pool.code.resolve(), "shared", 3, 4, 8),
        DrafterSpec("general", "standalone", pool.general.resolve(), "shared", 4, 1, 5),
        DrafterSpec("off", "none", None, "shared", 0, 1, 1),
    )
    assert loaded.tasks == (TaskSpec("code", "Python code", "code"), TaskSpec("chat", "chat", "off"))
    assert loaded.fallback_drafter == "general"
    assert loaded.router is not None
    assert (loaded.router.path, loaded.router.min_confidence) == ((pool.root / "router").resolve(), 0.5)


def test_look_up_by_name_and_manifest_order(pool: FakePool) -> None:
    loaded = load_pool(str(pool.root))
    assert [loaded.drafter_index(name) for name in ("code", "general", "off")] == [0, 1, 2]
    assert loaded.drafter("general").num_steps == 4
    assert loaded.task("chat").drafter == "off"
    with pytest.raises(KeyError, match=r"no drafter `best`.*code, general, off"):
        loaded.drafter("best")
    with pytest.raises(KeyError, match=r"no task `sql`.*code, chat"):
        loaded.task("sql")
    with pytest.raises(FrozenInstanceError):
        loaded.fallback_drafter = "code"  # type: ignore[misc]


def test_a_pool_written_by_hand_in_a_few_lines(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "draft")
    write_json(
        tmp_path / "pool.json",
        {
            "format": "sglang_hetero_spec.pool",
            "schema_version": 1,
            "drafters": [{"name": "one", "kind": "standalone", "path": "draft", "num_steps": 4}],
            "fallback_drafter": "one",
        },
    )
    loaded = load_pool(tmp_path)
    assert (loaded.router, loaded.tasks, loaded.target.name_or_path) == (None, (), None)
    assert loaded.drafters[0].num_draft_tokens == 5


def test_external_drafter_absolute_or_relative(pool: FakePool, tmp_path: Path) -> None:
    shutil.move(pool.code, tmp_path / "elsewhere")
    for path in (str(tmp_path / "elsewhere"), "../elsewhere"):
        pool.drafters[0].update(path=path, external=True)
        pool.write()
        assert load_pool(pool.root).drafter("code").path == (tmp_path / "elsewhere").resolve()


def test_external_checkpoint_of_links_is_accepted(pool: FakePool, tmp_path: Path) -> None:
    """Download caches are folders of links to blobs."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    shutil.move(pool.code, blobs)
    snapshot.mkdir()
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(file)
    pool.drafters[0].update(path=str(snapshot), external=True)
    pool.write()
    assert load_pool(pool.root).drafter("code").path == snapshot.resolve()


@pytest.mark.parametrize("of_file", [False, True])
def test_right_hashes_are_accepted(pool: FakePool, of_file: bool) -> None:
    sha = file_sha256(pool.target / "tokenizer.json") if of_file else tokenizer_sha256(pool.target)
    pool.manifest["target"]["tokenizer_sha256"] = sha
    pool.drafters[0].update(weights_sha256=weights_sha256(pool.code), tokenizer_sha256=sha)
    pool.write()
    assert load_pool(pool.root, target=pool.target).drafter("code").tokenizer_sha256 == sha
    assert load_pool(pool.root, target="some/hub-name").target.tokenizer_sha256 == sha


def test_the_hash_of_the_map_is_the_same_for_any_layout(pool: FakePool) -> None:
    before = tokenizer_sha256(pool.code)
    path = pool.code / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=7))
    assert tokenizer_sha256(pool.code) == before == tokenizer_sha256(pool.target)


def test_padded_vocabulary_is_accepted(pool: FakePool) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "vocab_size": 128}
    write_json(pool.code / "config.json", config)
    load_pool(pool.root, target=pool.target)


def test_added_tokens_where_the_other_has_padding_are_accepted(pool: FakePool) -> None:
    write_tokenizer(pool.target, added=("<s>", "<think>"))
    config = {"architectures": ["LlamaForCausalLM"], "vocab_size": 64}
    write_json(pool.code / "config.json", config)
    write_json(pool.general / "config.json", config)
    load_pool(pool.root, target=pool.target)


def test_tokenizers_are_not_compared_with_a_target_that_is_not_a_folder(pool: FakePool) -> None:
    write_tokenizer(pool.code, [f"other{index}" for index in range(20)])
    load_pool(pool.root)
    load_pool(pool.root, target="organisation/model")


def test_a_short_safetensors_header_is_no_pickle(pool: FakePool) -> None:
    """A header of 640 bytes starts with 0x80 0x02, like a pickle."""
    from safetensors.numpy import save_file

    path = pool.code / "model.safetensors"
    for padding in range(400, 640):
        import numpy as np

        save_file({"w": np.zeros(2, np.float32)}, str(path), metadata={"pad": "x" * padding})
        if path.read_bytes()[:2] == b"\x80\x02":
            break
    else:
        pytest.fail("no padding gave a header of 640 bytes")
    load_pool(pool.root)


def test_hash_of_weights_is_what_sha256sum_prints(pool: FakePool) -> None:
    one = hashlib.sha256((pool.code / "model.safetensors").read_bytes()).hexdigest()
    assert weights_sha256(pool.code) == one
    write_weights(pool.code / "model-00002.safetensors", 3.0)
    two = hashlib.sha256((pool.code / "model-00002.safetensors").read_bytes()).hexdigest()
    lines = f"{two}  model-00002.safetensors\n{one}  model.safetensors\n"
    assert weights_sha256(pool.code) == hashlib.sha256(lines.encode()).hexdigest()


def test_a_complete_sharded_checkpoint_is_accepted(pool: FakePool) -> None:
    write_weights(pool.code / "model-00002.safetensors")
    shards = {"a": "model.safetensors", "b": "model-00002.safetensors"}
    write_json(pool.code / "model.safetensors.index.json", {"weight_map": shards})
    load_pool(pool.root)


@pytest.mark.parametrize("sizes", [{"text_config": {"vocab_size": 64}}, {"vocab_size": "many"}, {"text_config": 3}, {}])
def test_vocab_size_may_be_nested_or_missing(pool: FakePool, sizes: dict[str, object]) -> None:
    write_json(pool.code / "config.json", {"architectures": ["LlamaForCausalLM"], **sizes})
    load_pool(pool.root, target=pool.target)


def test_nested_vocab_size_counts(pool: FakePool) -> None:
    sizes = {"text_config": {"vocab_size": 3}}
    write_json(pool.code / "config.json", {"architectures": ["LlamaForCausalLM"], **sizes})
    assert "has a `vocab_size` of 3" in pool.refusal(target=pool.target)


def test_names_of_limits_are_usable(pool: FakePool) -> None:
    pool.drafters[0].update(num_steps=64, topk=32, num_draft_tokens=128)
    pool.drafters[1].update(num_steps=1, topk=2, num_draft_tokens=3)
    pool.write()
    load_pool(pool.root)
