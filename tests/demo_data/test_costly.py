"""A costly target has the function of its source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from sglang_hetero_spec.demo.costly import make_costly


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=64, tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("source")
    LlamaForCausalLM(config).save_pretrained(path)
    (path / "tokenizer.json").write_text("{}", encoding="utf-8")
    return path


def _logits(path: Path, ids: torch.Tensor) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(ids).logits


def test_same_logits_more_parameters(source: Path, tmp_path: Path) -> None:
    made = make_costly(source, tmp_path / "big", num_params=400_000)
    ids = torch.randint(0, 97, (3, 40), generator=torch.Generator().manual_seed(1))
    assert (_logits(made.path, ids) - _logits(source, ids)).abs().max() <= 1e-5
    with safe_open(made.path / "model.safetensors", "pt") as file:
        count = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    assert count == made.num_params and 0.9 * 400_000 < count <= 400_000
    assert made.layers == 4 and (made.path / "tokenizer.json").read_text(encoding="utf-8") == "{}"


def test_bf16_source(source: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(half)
    made = make_costly(half, tmp_path / "big", num_params=300_000)
    ids = torch.arange(30)[None]
    assert (_logits(made.path, ids) - _logits(half, ids)).abs().max() <= 1e-5


def test_extra_weights_are_not_zero(source: Path, tmp_path: Path) -> None:
    """Else a library could skip them, and the cost would not be a real model's."""
    made = make_costly(source, tmp_path / "big", num_params=400_000)
    with safe_open(made.path / "model.safetensors", "pt") as file:
        assert file.get_tensor("model.layers.0.mlp.up_proj.weight")[48:].abs().min(dim=1).values.max() > 0
        assert file.get_tensor("model.layers.3.self_attn.q_proj.weight").std() > 0.01


def test_used_again_until_the_source_changes(source: Path, tmp_path: Path) -> None:
    mine, out = tmp_path / "mine", tmp_path / "big"
    shutil.copytree(source, mine)
    make_costly(mine, out, num_params=400_000)
    first = (out / "model.safetensors").stat()
    make_costly(mine, out, num_params=400_000)
    assert (out / "model.safetensors").stat().st_mtime_ns == first.st_mtime_ns
    (mine / "tokenizer.json").write_text("[]", encoding="utf-8")
    make_costly(mine, out, num_params=400_000)
    assert (out / "model.safetensors").stat().st_mtime_ns != first.st_mtime_ns
    assert (out / "tokenizer.json").read_text(encoding="utf-8") == "[]"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_refusals(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        make_costly(tmp_path, tmp_path / "big")
    with pytest.raises(ValueError, match="ask for more"):
        make_costly(source, tmp_path / "big", num_params=20_000)
    other = tmp_path / "other"
    shutil.copytree(source, other)
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps({**config, "architectures": ["MambaForCausalLM"]}), encoding="utf-8")
    with pytest.raises(ValueError, match="LlamaForCausalLM"):
        make_costly(other, tmp_path / "big")
    assert not (tmp_path / "big").exists()
