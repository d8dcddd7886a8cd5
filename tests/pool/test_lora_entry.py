"""Entries of kind `lora`, and the adapters behind them: each thing that is wrong is one sentence, before any load."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.pool import PoolError, load_pool
from sglang_hetero_spec.pool import adapter as adapters
from sglang_hetero_spec.pool.adapter import AdapterConfig, named_base, place_of, read_adapter_config
from sglang_hetero_spec.pool.running import heirs, with_adapter, without_adapter
from sglang_hetero_spec.server_args import refuse_for_adapters
from tests.pool.fake_pool import write_checkpoint, write_tokenizer
from tests.support.manifest import write_manifest

HIDDEN, KV, WIDE, RANK = 8, 4, 12, 2
SIZES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (KV, HIDDEN), "self_attn.v_proj": (KV, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN), "mlp.gate_proj": (WIDE, HIDDEN), "mlp.up_proj": (WIDE, HIDDEN),
    "mlp.down_proj": (HIDDEN, WIDE),
}  # fmt: skip
CONFIG = {
    "peft_type": "LORA", "r": RANK, "lora_alpha": 8, "bias": "none", "use_dora": False, "modules_to_save": None,
    "target_modules": ["q_proj"], "rank_pattern": {}, "base_model_name_or_path": "somewhere/else",
    "init_lora_weights": True, "megatron_core": "megatron.core", "a_key_of_later": None,
}  # fmt: skip


def write_base(folder: Path, layers: int = 2, value: float = 1.0) -> Path:
    write_checkpoint(folder)
    names = [f"model.layers.{layer}.{name}" for layer in range(layers) for name in SIZES]
    save_file(
        {f"{name}.weight": np.full(SIZES[name.split(".", 3)[3]], value, np.float32) for name in names},
        folder / "model.safetensors",
    )
    return folder


def write_adapter(folder: Path, names: tuple[str, ...] = tuple(SIZES), rank: int = RANK, **config: object) -> Path:
    folder.mkdir(parents=True)
    tensors = {}
    for name in names:
        size_out, size_in = SIZES[name]
        key = f"base_model.model.model.layers.1.{name}"
        tensors[f"{key}.lora_A.weight"] = np.ones((rank, size_in), np.float32)
        tensors[f"{key}.lora_B.weight"] = np.ones((size_out, rank), np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, "r": rank, **config}))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_base(tmp_path / "pool" / "base")
    write_adapter(tmp_path / "pool" / "sql")
    return tmp_path / "pool"


def write_pool(root: Path, **changes: object) -> Path:
    drafters = [
        {"name": "sql", "kind": "lora", "path": "sql", "base": "base", **changes},
        {"name": "base", "kind": "standalone", "path": "base", "num_steps": 3},
        {"name": "off", "kind": "none"},
    ]
    tasks = [{"id": "t", "drafter": "sql"}]
    given = [{key: value for key, value in drafter.items() if value is not None} for drafter in drafters]
    return write_manifest(root, given, fallback="sql", tasks=tasks)


def refusal(root: Path, **changes: object) -> str:
    with pytest.raises(PoolError) as found:
        load_pool(write_pool(root, **changes))
    said = str(found.value)
    assert said.endswith(".") and "\n" not in said
    return said


def test_an_adapter_has_its_bases_shape_unless_it_says_otherwise(root: Path) -> None:
    pool = load_pool(write_pool(root))
    spec = pool.drafter("sql")
    assert (spec.kind, spec.base, spec.num_steps, spec.topk, spec.num_draft_tokens) == ("lora", "base", 3, 1, 4)
    assert load_pool(write_pool(root, num_steps=5)).drafter("sql").num_draft_tokens == 6


def test_scale_is_alpha_over_rank_or_its_root(root: Path) -> None:
    assert read_adapter_config(root / "sql", "here").scale == 4
    write_adapter(root / "rs", use_rslora=True)
    assert read_adapter_config(root / "rs", "here").scale == pytest.approx(8 / 2**0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base": None}, "`drafters[0].base` is missing"),
        ({"base": "nobody"}, "is no drafter of kind `standalone`"),
        ({"base": "off"}, "is no drafter of kind `standalone`"),
        ({"base": "sql"}, "is no drafter of kind `standalone`"),
        ({"path": None}, "`drafters[0].path` is missing"),
        ({"path": "nowhere"}, "does not exist"),
        ({"path": "base"}, "has no adapter_config.json"),
        ({"vocab": "tli"}, "kind `lora` has no such key"),
        ({"weights_sha256": "0" * 64}, "weights_sha256"),
    ],
)
def test_entries_that_cannot_be(root: Path, changes: dict, words: str) -> None:
    assert words in refusal(root, **changes)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "IA3"}, '`peft_type` is "IA3", not LORA'),
        ({"r": 0}, "with a rank from 1 to 256"),
        ({"r": True}, "with a rank from 1 to 256"),
        ({"r": 512}, "train it with a smaller rank"),
        ({"r": 3}, "and rank 3 on the base"),
        ({"lora_alpha": None}, "`lora_alpha` is null"),
        ({"use_dora": True}, "`use_dora` is true, which is not served"),
        ({"bias": "all"}, "biases are not served"),
        ({"modules_to_save": ["lm_head"]}, "`modules_to_save` is"),
        ({"rank_pattern": {"q_proj": 4}}, "`rank_pattern` is"),
        ({"alpha_pattern": {"q_proj": 4}}, "`alpha_pattern` is"),
        ({"layer_replication": [[0, 1]]}, "`layer_replication` is"),
        ({"fan_in_fan_out": True}, "`fan_in_fan_out` is"),
        ({"trainable_token_indices": [1]}, "`trainable_token_indices` is"),
        ({"a_key_of_later": "on"}, "`a_key_of_later` is"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base's own weights"),
    ],
)
def test_settings_of_peft_that_are_not_served(root: Path, config: dict, words: str) -> None:
    path = root / "sql" / "adapter_config.json"
    path.write_text(json.dumps({**CONFIG, **config}))
    assert words in refusal(root)


def _rename(old: str, new: str) -> Callable[[dict], dict]:
    return lambda tensors: {key.replace(old, new): value for key, value in tensors.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_rename("layers.1", "layers.2"), "adapts `model.layers.2."),
        (_rename("model.model.layers", "model.transformer.layers"), "which the base"),
        (_rename("q_proj.lora_A", "embed_tokens.lora_embedding_A"), "only LoRA matrices of"),
        (_rename("self_attn.q_proj", "lm_head"), "only LoRA matrices of"),
        (lambda tensors: {k: v for k, v in tensors.items() if "v_proj.lora_B" not in k}, "one matrix of two for"),
        (lambda tensors: {k: v.astype(np.int8) for k, v in tensors.items()}, "is stored as"),
        (lambda tensors: {k: v[:, :9] if "down_proj.lora_A" in k else v for k, v in tensors.items()}, "shape [2, 9]"),
    ],
    ids=["layer", "name", "embedding", "head", "half", "dtype", "shape"],
)  # fmt: skip
def test_matrices_that_do_not_fit_the_base(root: Path, change: Callable[[dict], dict], words: str) -> None:
    path = root / "sql" / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)
    assert words in refusal(root)


def test_a_rank_above_the_matrices(root: Path) -> None:
    write_adapter(root / "big", ("self_attn.q_proj",), rank=HIDDEN + 1)
    assert "rank 9 is larger than `model.layers.1.self_attn.q_proj`" in refusal(root, path="big")


def test_an_adapter_of_another_base_that_is_still_there(root: Path, tmp_path: Path) -> None:
    other = write_base(tmp_path / "other", value=2.0)
    write_adapter(root / "theirs", base_model_name_or_path=str(other))
    assert "whose weights are not those of the base" in refusal(root, path="theirs")
    same = write_base(tmp_path / "same")
    write_adapter(root / "ours", base_model_name_or_path=str(same))
    load_pool(write_pool(root, path="ours"))


def test_files_that_are_missing_or_pickled(root: Path) -> None:
    (root / "sql" / "adapter_model.safetensors").rename(root / "kept")
    assert "has no adapter_model.safetensors" in refusal(root)
    (root / "sql" / "adapter_model.bin").write_bytes(b"\x80\x02")
    assert "nothing in a pool may be a pickle" in refusal(root)
    (root / "sql" / "adapter_model.bin").unlink()
    (root / "sql" / "adapter_model.safetensors").write_bytes(b"\x00" * 20)
    assert "truncated or not a safetensors file" in refusal(root)


def _move(key: str, by: int) -> Callable[[dict], None]:
    def change(header: dict) -> None:
        header[key]["data_offsets"] = [offset + by for offset in header[key]["data_offsets"]]

    return change


def _shape(key: str, shape: list) -> Callable[[dict], None]:
    return lambda header: header[key].update(shape=shape)


Q_A = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    "change",
    [
        _move(Q_A, -4),
        _move(Q_A, 4),
        _shape(Q_A, [RANK, HIDDEN + 1]),
        _shape(Q_A, [-RANK, -HIDDEN]),
        _shape(Q_A, [float(RANK), HIDDEN]),
        lambda header: header[Q_A].update(dtype="F16"),
        lambda header: header[Q_A].update(data_offsets=[0]),
        lambda header: header.pop(Q_A),
    ],
    ids=["overlap", "gap", "size", "negative", "float", "dtype", "one-offset", "hole"],
)
def test_a_header_that_does_not_describe_its_data(root: Path, change: Callable[[dict], None]) -> None:
    path = root / "sql" / "adapter_model.safetensors"
    content = path.read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[length:])
    assert f"{path} is truncated or not a safetensors file" in refusal(root)


def test_a_base_is_named_from_the_adapters_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "base")
    for named, found in (("../base", root / "base"), (str(root), root), ("org/name", None), ("", None), (None, None),
                         ("a" * 300, None), ("a\0b", None), ("\ud800", None)):  # fmt: skip
        assert named_base(AdapterConfig(1, 1.0, named), root / "sql") == found
    write_base(root / "other", value=2.0)
    write_adapter(root / "theirs", base_model_name_or_path="../other")
    assert '"../other", whose weights are not those of the base' in refusal(root, path="theirs")


def test_a_base_without_a_path(root: Path) -> None:
    path = write_pool(root)
    manifest = json.loads((path / "pool.json").read_text())
    del manifest["drafters"][1]["path"]
    (path / "pool.json").write_text(json.dumps(manifest))
    with pytest.raises(PoolError, match=r"`drafters\[0\].base` is \"base\", which has no `path`"):
        load_pool(path)


def test_two_drafters_with_one_model_are_no_pair(root: Path) -> None:
    write_pool(root)
    manifest = json.loads((root / "pool.json").read_text())
    manifest["tasks"][0]["second_drafter"] = "base"
    (root / "pool.json").write_text(json.dumps(manifest))
    with pytest.raises(PoolError, match="both draft with the model of"):
        load_pool(root)


def test_tensor_names() -> None:
    found = place_of("base_model.model.model.layers.12.mlp.up_proj.lora_B.weight")
    assert found is not None
    assert (found.module, found.layer, found.projection, found.matrix) == (
        "model.layers.12.mlp.up_proj",
        12,
        "up_proj",
        "B",
    )
    assert place_of("base_model.model.model.layers.1.mlp.up_proj.lora_B.default.weight") is None


# A pool whose adapters come and go.


def test_an_adapter_finds_its_base_and_leaves_it_its_tasks(root: Path, tmp_path: Path) -> None:
    pool = load_pool(write_pool(root))
    added = with_adapter(pool, "new", str(write_adapter(tmp_path / "new")))
    assert (added.drafters[-1].name, added.drafters[-1].base, added.drafters[-1].num_steps) == ("new", "base", 3)
    assert added.drafters[:-1] == pool.drafters and added.drafter_index("new") == 3
    gone = without_adapter(added, "sql")
    assert [gone.fallback_drafter, gone.tasks[0].drafter] == ["base", "base"]
    assert len(gone.drafters) == 4 and heirs(gone) == {"sql": "base"}
    again = with_adapter(gone, "sql", str(root / "sql"))
    assert again.drafter_index("sql") == 4 and heirs(again) == {}
    with pytest.raises(PoolError, match="give one of `new`"):
        without_adapter(gone, "sql")


def test_of_two_bases_that_fit_the_named_one_is_meant(root: Path, tmp_path: Path) -> None:
    write_base(root / "twin")
    drafters = [{"name": name, "kind": "standalone", "path": name, "num_steps": 2} for name in ("base", "twin")]
    pool = load_pool(write_manifest(root, drafters, fallback="base"))
    with pytest.raises(PoolError, match="fits the drafters `base`, `twin`"):
        with_adapter(pool, "new", str(root / "sql"))
    named = write_adapter(tmp_path / "named", base_model_name_or_path=str(root / "twin"))
    assert with_adapter(pool, "new", str(named)).drafters[-1].base == "twin"
    moved = write_adapter(root / "moved", base_model_name_or_path="../twin")
    assert with_adapter(pool, "new", str(moved)).drafters[-1].base == "twin"


def test_where_the_base_is_known_no_weights_are_compared(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_base(root / "twin", value=2.0)
    drafters = [{"name": name, "kind": "standalone", "path": name, "num_steps": 2} for name in ("base", "twin")]
    pool = load_pool(write_manifest(root, drafters, fallback="base"))
    copy = write_base(tmp_path / "copy", value=2.0)
    path = str(write_adapter(tmp_path / "new", base_model_name_or_path=str(copy)))
    found = with_adapter(pool, "new", path)
    assert found.drafters[-1].base == "twin"
    monkeypatch.setattr(adapters, "weights_sha256", None)
    assert with_adapter(pool, "new", path, "twin") == found


@pytest.mark.parametrize("path", ["/" + "a" * 300, "/tmp/\0", "/tmp/\ud800", "/nowhere"])
def test_a_path_that_cannot_be_is_one_sentence(root: Path, path: str) -> None:
    pool = load_pool(write_pool(root))
    with pytest.raises(PoolError, match=r"^`lora_path` is .*; give an adapter's folder\.$"):
        with_adapter(pool, "new", path)


@pytest.mark.parametrize("named", ["a\0b", "a" * 300, "\ud800"])
def test_a_base_that_cannot_be_a_path_is_none(root: Path, tmp_path: Path, named: str) -> None:
    pool = load_pool(write_pool(root))
    path = write_adapter(tmp_path / "new", base_model_name_or_path=named)
    assert with_adapter(pool, "new", str(path)).drafters[-1].base == "base"


def test_a_folder_that_cannot_be_searched(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    pool = load_pool(write_pool(root))
    monkeypatch.setattr(Path, "is_dir", forbidden)
    with pytest.raises(PoolError, match=r"which cannot be read \(Permission denied\); give an adapter's folder"):
        with_adapter(pool, "new", str(root / "sql"))


def test_a_pool_without_a_base_takes_no_adapter(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "pool")
    pool = load_pool(write_manifest(tmp_path / "pool", [{"name": "off", "kind": "none"}], fallback="off"))
    with pytest.raises(PoolError, match="no drafter of kind `standalone`"):
        with_adapter(pool, "new", str(write_adapter(tmp_path / "new")))


def test_more_than_one_rank_is_refused(root: Path) -> None:
    pool = load_pool(write_pool(root))
    refuse_for_adapters(SimpleNamespace(tp_size=1), pool)
    with pytest.raises(HeteroError, match=r"--tp-size above 1 with drafter sql \(kind `lora`\)"):
        refuse_for_adapters(SimpleNamespace(tp_size=2), pool)
