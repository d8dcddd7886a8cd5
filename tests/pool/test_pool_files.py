"""Folders, weights, hashes, tokenizers, router and pickles: refused before anything is loaded."""

from __future__ import annotations

import ast
import importlib.metadata
import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
from fake_pool import FakePool, write_checkpoint, write_json, write_router, write_tokenizer, write_weights

from sglang_hetero_spec.pool import PoolError, digest, file_sha256, tokenizer_sha256, weights_sha256
from sglang_hetero_spec.pool.architectures import REWRITTEN
from sglang_hetero_spec.pool.errors import shown


def test_absolute_path(pool: FakePool) -> None:
    pool.drafters[0]["path"] = str(pool.code)
    assert pool.refusal() == (
        f"{pool.manifest_path}: `drafters[0].path` is {shown(str(pool.code))}, an absolute path; give one relative to"
        ' the pool, or add `"external": true`.'
    )


@pytest.mark.parametrize("path", ["../target", "drafters/../../target", "router/../.."])
def test_path_that_leaves_the_pool(pool: FakePool, path: str) -> None:
    pool.drafters[0]["path"] = path
    assert pool.refusal() == (
        f'{pool.manifest_path}: `drafters[0].path` is "{path}", which leaves the pool; move the folder into'
        ' the pool, or add `"external": true`.'
    )


def test_path_that_leaves_the_pool_by_a_link(pool: FakePool) -> None:
    shutil.rmtree(pool.code)
    pool.code.symlink_to(pool.target)
    assert '`drafters[0].path` is "drafters/code", which leaves the pool' in pool.refusal()


def test_file_that_leaves_the_pool_by_a_link(pool: FakePool) -> None:
    (pool.code / "model.safetensors").unlink()
    (pool.code / "model.safetensors").symlink_to(pool.target / "model.safetensors")
    assert "`drafters[0].path` holds the link model.safetensors, which leaves the pool" in pool.refusal()


def test_link_to_itself(pool: FakePool) -> None:
    shutil.rmtree(pool.code)
    pool.code.symlink_to(pool.code)
    assert '`drafters[0].path` is "drafters/code"' in pool.refusal()


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_path_that_is_none(pool: FakePool, path: str) -> None:
    pool.drafters[0]["path"] = path
    assert "; give a folder, relative to the pool." in pool.refusal()


def test_path_is_the_pool_itself(pool: FakePool) -> None:
    pool.drafters[0]["path"] = "drafters/.."
    assert '`drafters[0].path` is "drafters/..", the pool itself;' in pool.refusal()


@pytest.mark.parametrize("external", [False, True])
def test_missing_drafter_folder(pool: FakePool, external: bool) -> None:
    pool.drafters[0].update(path="drafters/sql", external=external)
    assert pool.refusal() == (
        f'{pool.manifest_path}: `drafters[0].path` is "drafters/sql", but {pool.root}/drafters/sql does not'
        " exist; correct the path, or put the folder there."
    )


def test_drafter_folder_is_a_file(pool: FakePool) -> None:
    pool.drafters[0]["path"] = "drafters/code/config.json"
    assert "drafters/code/config.json is not a folder;" in pool.refusal()


def test_missing_config(pool: FakePool) -> None:
    (pool.code / "config.json").unlink()
    assert pool.refusal() == (
        f"{pool.manifest_path}: `drafters[0].path` is {pool.code}, which has no config.json;"
        " put the draft model's checkpoint there."
    )


def test_broken_config(pool: FakePool) -> None:
    (pool.code / "config.json").write_text("{")
    assert f"{pool.code}/config.json is not complete JSON" in pool.refusal()


def test_missing_weights(pool: FakePool) -> None:
    (pool.code / "model.safetensors").unlink()
    assert pool.refusal() == (
        f"{pool.manifest_path}: `drafters[0].path` is {pool.code}, which has no *.safetensors file;"
        " save the weights as safetensors."
    )


def test_missing_shard(pool: FakePool) -> None:
    index = pool.code / "model.safetensors.index.json"
    write_json(index, {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}})
    assert f"{index} names `model-2.safetensors`, missing in {pool.code}" in pool.refusal()


def test_weights_with_an_impossible_header(pool: FakePool) -> None:
    path = pool.code / "model.safetensors"
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])
    assert f"{path} is truncated or not a safetensors file;" in pool.refusal()


@pytest.mark.parametrize("keep", [0, 4, 12, -1])
def test_truncated_weights(pool: FakePool, keep: int) -> None:
    path = pool.code / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert pool.refusal() == (f"{path} is truncated or not a safetensors file; copy or save the weights again.")


def test_wrong_weights_hash(pool: FakePool) -> None:
    right, wrong = weights_sha256(pool.code), "0" * 64
    pool.drafters[0]["weights_sha256"] = wrong
    assert pool.refusal() == (
        f"{pool.manifest_path}: `drafters[0].weights_sha256` is {wrong}, but the weights in {pool.code} have"
        f" {right}; restore the file, or correct the hash if the change is wanted."
    )


def test_weights_that_changed_since_they_were_hashed(pool: FakePool) -> None:
    pool.drafters[0]["weights_sha256"] = weights_sha256(pool.code)
    write_weights(pool.code / "model.safetensors", 7.0)
    assert "`drafters[0].weights_sha256` is" in pool.refusal()


def test_a_file_is_hashed_once(pool: FakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    first = weights_sha256(pool.code)
    monkeypatch.setattr(digest.hashlib, "sha256", lambda: pytest.fail("hashed again"))
    assert weights_sha256(pool.code) == first


def test_wrong_tokenizer_hash(pool: FakePool) -> None:
    of_file, of_map, wrong = file_sha256(pool.code / "tokenizer.json"), tokenizer_sha256(pool.code), "0" * 64
    pool.drafters[0]["tokenizer_sha256"] = wrong
    assert pool.refusal() == (
        f"{pool.manifest_path}: `drafters[0].tokenizer_sha256` is {wrong}, but the tokenizer in {pool.code} has"
        f" {of_file} (its id-to-token map: {of_map}); restore the file, or correct the hash if the change is wanted."
    )


def test_tokenizer_hash_without_a_tokenizer(pool: FakePool) -> None:
    pool.drafters[0]["tokenizer_sha256"] = "0" * 64
    (pool.code / "tokenizer.json").unlink()
    assert f"{pool.code}/tokenizer.json is missing; put the tokenizer" in pool.refusal()


def test_wrong_target_hash(pool: FakePool) -> None:
    pool.manifest["target"]["tokenizer_sha256"] = "0" * 64
    message = pool.refusal(target=pool.target)
    assert f"`target.tokenizer_sha256` is {'0' * 64}, but the tokenizer of the target {pool.target} has" in message
    assert "serve the target that the pool was made for" in message


def test_drafter_against_the_targets_hash_where_the_target_is_not_here(pool: FakePool) -> None:
    pool.manifest["target"]["tokenizer_sha256"] = "0" * 64
    message = pool.refusal(target="organisation/model")
    assert f'`drafters[0].vocab` is "shared", but the tokenizer in {pool.code} has the hash' in message


def test_permuted_tokenizer(pool: FakePool) -> None:
    words = [f"w{index}" for index in range(20)]
    words[3], words[5], words[9] = words[5], words[9], words[3]
    write_tokenizer(pool.code, words)
    assert pool.refusal(target=pool.target) == (
        f'{pool.manifest_path}: `drafters[0].vocab` is "shared", but in {pool.code} 3 of 21 token ids do not'
        f" mean what they do in the target {pool.target} (first 3: 'w5', there 'w3'); use a draft model with"
        ' the target\'s tokenizer, or write "auto".'
    )


@pytest.mark.parametrize(
    ("words", "added", "count"),
    [
        ([f"x{index}" for index in range(20)], ("<s>",), 20),
        ([f"w{index}" for index in range(19)], ("<s>",), 1),
        ([f"w{index}" for index in range(25)], ("<s>",), 5),
        ([f"w{index}" for index in range(20)], ("</s>",), 1),
        ([f"w{index}" for index in range(20)], ("<think>", "<s>"), 1),
    ],
)
def test_other_tokenizer(pool: FakePool, words: list[str], added: tuple[str, ...], count: int) -> None:
    write_tokenizer(pool.general, words, added)
    message = pool.refusal(target=pool.target)
    assert f'`drafters[1].vocab` is "shared", but in {pool.general} {count} of 21 token ids do not' in message


def test_embedding_smaller_than_the_targets_vocabulary(pool: FakePool) -> None:
    write_json(pool.code / "config.json", {"architectures": ["LlamaForCausalLM"], "vocab_size": 20})
    message = pool.refusal(target=pool.target)
    assert f"config.json has a `vocab_size` of 20 and the target {pool.target} has 21 tokens" in message


def test_missing_tokenizer(pool: FakePool) -> None:
    (pool.code / "tokenizer.json").unlink()
    assert f"{pool.code}/tokenizer.json is missing; put the tokenizer" in pool.refusal(target=pool.target)


@pytest.mark.parametrize("text", ["{}", "[]", '{"model": {"vocab": 3}}', '{"model": {"vocab": {"a": "b"}}}', "{"])
def test_broken_tokenizer(pool: FakePool, text: str) -> None:
    (pool.code / "tokenizer.json").write_text(text)
    message = pool.refusal(target=pool.target)
    assert f"{pool.code}/tokenizer.json is not a tokenizer of the `tokenizers` library" in message


def test_missing_router(pool: FakePool) -> None:
    shutil.rmtree(pool.root / "router")
    message = pool.refusal()
    assert f'`router.path` is "router", but {pool.root}/router does not exist' in message


@pytest.mark.parametrize("name", ["router.json", "router.safetensors"])
def test_missing_router_file(pool: FakePool, name: str) -> None:
    (pool.root / "router" / name).unlink()
    message = pool.refusal()
    assert message.startswith(f"{pool.root}/router/{name} ")


@pytest.mark.parametrize("path", ["../target", "/tmp"])
def test_router_outside_the_pool(pool: FakePool, path: str) -> None:
    pool.manifest["router"]["path"] = path
    message = pool.refusal()
    assert f'`router.path` is "{path}", ' in message and "external" not in message


@pytest.mark.parametrize(
    ("classes", "only_router", "only_pool"),
    [
        (["code", "sql"], "`sql`", "`chat`"),
        (["code"], "none", "`chat`"),
        (["code", "chat", "sql"], "`sql`", "none"),
        ([], "none", "`chat`, `code`"),
    ],
)
def test_router_of_other_tasks(pool: FakePool, classes: list[str], only_router: str, only_pool: str) -> None:
    write_router(pool.root / "router", classes)
    assert pool.refusal() == (
        f"{pool.root}/router/router.json: `classes` are not the tasks of pool.json (only the router has"
        f" {only_router}; only pool.json has {only_pool}); fit the router again, or correct `tasks`."
    )


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("format", "x", '`format` is "x", not "sglang_hetero_spec.router"; fit it again.'),
        ("schema_version", True, "`schema_version` is true, not a whole number above 0; fit the router again."),
        ("schema_version", 0, "`schema_version` is 0, not a whole number above 0; fit the router again."),
        ("classes", "code", '`classes` is "code", not a list of task ids; fit the router again.'),
        ("classes", ["code", ["chat"]], '`classes` is ["code", ["chat"]], not a list of task ids;'),
        ("classes", ["code", "chat", "code"], "`classes` names a task twice; fit the router again."),
    ],
)
def test_broken_router(pool: FakePool, key: str, value: object, says: str) -> None:
    path = pool.root / "router" / "router.json"
    write_json(path, {**json.loads(path.read_text()), key: value})
    assert pool.refusal().startswith(f"{path}: {says}")


@pytest.mark.parametrize("suffix", ["pkl", "pickle", "bin", "pt", "pth", "ckpt", "joblib", "PKL"])
@pytest.mark.parametrize("folder", ["", "drafters/code", "router", "notes/old"])
def test_pickle_by_name(pool: FakePool, suffix: str, folder: str) -> None:
    path = pool.root / folder / f"model.{suffix}"
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(b"")
    assert pool.refusal() == (
        f"{path} is named like a pickle (.{suffix.lower()}), and nothing in a pool may be a pickle; remove it"
        " (weights: *.safetensors only)."
    )


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_by_content(pool: FakePool, protocol: int) -> None:
    path = pool.root / "router" / "model_head.dat"
    path.write_bytes(pickle.dumps({"coefficients": [1.0]}, protocol=protocol))
    assert f"{path} starts like a pickle, and nothing in a pool may be a pickle" in pool.refusal()


def test_pickle_named_like_weights(pool: FakePool) -> None:
    path = pool.code / "extra.safetensors"
    path.write_bytes(pickle.dumps(os.getcwd, protocol=2))
    assert f"{path} starts like a pickle" in pool.refusal()


def test_torch_archive_by_content(pool: FakePool) -> None:
    path = pool.code / "weights.data"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02.")
    path.write_bytes(archive.getvalue())
    assert f"{path} is an archive with a pickle in it" in pool.refusal()


def test_pickle_in_an_external_drafter(pool: FakePool, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write_checkpoint(outside)
    (outside / "pytorch_model.bin").write_bytes(b"")
    pool.drafters[0].update(path=str(outside), external=True)
    assert f"{outside}/pytorch_model.bin is named like a pickle (.bin)" in pool.refusal()


def test_a_pipe_does_not_block(pool: FakePool) -> None:
    os.mkfifo(pool.root / "pipe")
    from sglang_hetero_spec.pool import load_pool

    load_pool(pool.root)


@pytest.mark.parametrize(
    ("architecture", "why"),
    [
        ("Qwen3MoeForCausalLM", "which SGLang 0.5.23 turns into a head of the target"),
        ("DeepseekV3ForCausalLM", "which SGLang 0.5.23 turns into a head of the target"),
        ("LlamaForCausalLMEagle3", "a head that needs its target's hidden states"),
        ("BertForMaskedLM", "not a language model"),
        ("LlamaForSequenceClassification", "not a language model"),
    ],
)
def test_architecture_that_cannot_draft(pool: FakePool, architecture: str, why: str) -> None:
    write_checkpoint(pool.code, architecture=architecture)
    assert pool.refusal() == (
        f"{pool.code}/config.json: `architectures` is {architecture}, {why};"
        " use a dense causal LM (Llama, Qwen2, Qwen3, Gemma, ...)."
    )


@pytest.mark.parametrize("value", [None, [], "LlamaForCausalLM", [1]])
def test_no_architecture(pool: FakePool, value: object) -> None:
    write_json(pool.code / "config.json", {"architectures": value})
    assert f"{pool.code}/config.json: `architectures` is {json.dumps(value)}; name the model's" in pool.refusal()


def test_checkpoint_with_code_of_its_own(pool: FakePool) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "auto_map": {"AutoModel": "modeling.Model"}}
    write_json(pool.code / "config.json", config)
    assert f"{pool.code}/config.json: `auto_map` would run code of the checkpoint" in pool.refusal()


def test_rewritten_architectures_are_those_of_the_pinned_sglang() -> None:
    """Reads the source, so that a new SGLang shows here which models changed."""
    source = importlib.metadata.distribution("sglang").locate_file("sglang/srt/configs/model_config.py")
    tree = ast.parse(Path(str(source)).read_text())
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    [function] = [
        node for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "_config_draft_model"
    ]  # fmt: skip
    names: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Compare) and ast.unparse(node.left) == "self.hf_config.architectures[0]":
            [right] = node.comparators
            found = ast.literal_eval(constants[right.id] if isinstance(right, ast.Name) else right)
            names |= {found} if isinstance(found, str) else set(found)
    assert names - REWRITTEN == {"DSparkMiniMaxDraftModel"}, "a draft head, refused by its name"
    by_class = {"Dots3NoteForCausalLM"}  # rewritten by the type of its config, not by name
    assert REWRITTEN - names == by_class
    assert "isinstance(self.hf_text_config, Dots3Config)" in ast.unparse(function)


def test_index_that_is_none(pool: FakePool) -> None:
    index = pool.code / "model.safetensors.index.json"
    write_json(index, {"weight_map": [1]})
    assert pool.refusal() == f"{index}: `weight_map` is [1]; save the checkpoint again."


def test_weights_hash_of_a_folder_without_weights(pool: FakePool) -> None:
    (pool.code / "model.safetensors").unlink()
    with pytest.raises(PoolError, match=r"has no \*\.safetensors file"):
        weights_sha256(pool.code)


def test_a_line_break_in_a_path_does_not_break_the_sentence(pool: FakePool) -> None:
    moved = pool.root.rename(pool.root.with_name("po\nol\x1b[2J"))
    pool.root, pool.manifest_path = moved, moved / "pool.json"
    pool.drafters[0]["topk"] = 0
    assert "/po?ol?[2J/pool.json: `drafters[0].topk` is 0;" in pool.refusal()


def test_many_names_are_cut(pool: FakePool) -> None:
    write_router(pool.root / "router", ["code", "chat", *(f"t{index:02}" for index in range(20))])
    assert "`t11`, `and 8 more`" not in pool.refusal()
    assert "`t11`, and 8 more; only pool.json has none" in pool.refusal()
