"""peft adapters with random matrices, and the linear layers of a transformers model as SGLang fuses and names them."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn


def write_adapter(
    base: Any,
    folder: Path,
    *,
    rank: int = 4,
    seed: int = 0,
    size: float = 0.3,
    named: str | None = None,
    **options: Any,
) -> Path:
    """An adapter of `base`, a transformers model or its folder, that changes what it says. named: its base's folder."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    if isinstance(base, (str, Path)):
        named = named or str(base)
        base = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=rank, **{"target_modules": "all-linear", "lora_alpha": 2 * rank, **options}
    )
    model = get_peft_model(copy.deepcopy(base), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(0.0, size * weight.shape[1] ** -0.5)
    model.peft_config["default"].base_model_name_or_path = named
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return folder


def merged(base: Any, folder: Path) -> Any:
    """What peft makes of the base and the adapter in `folder`."""
    from peft import PeftModel

    return PeftModel.from_pretrained(copy.deepcopy(base), str(folder)).merge_and_unload().eval()


class _Fused(nn.Module):
    """As SGLang's linear layers: they return (output, bias)."""

    def __init__(self, parts: list[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.cat([part.weight for part in parts]))
        self.output_size, self.input_size = self.weight.shape
        sizes = [part.out_features for part in parts]
        if len(parts) == 3:
            self.q_proj_shard_size, self.kv_proj_shard_size, self.v_proj_shard_size = sizes

    def forward(self, read: torch.Tensor) -> tuple[torch.Tensor, None]:
        return nn.functional.linear(read, self.weight), None


def _padded(linear: nn.Linear, rows: int = 0, columns: int = 0) -> nn.Linear:
    """The inner size of an MLP rounded up with zeros, as SGLang does on CPU."""
    wide = nn.Linear(linear.in_features + columns, linear.out_features + rows, bias=False)
    wide.weight = nn.Parameter(nn.functional.pad(linear.weight.detach(), (0, columns, 0, rows)))
    return wide


def fused_runner(model: Any, extra: int = 0) -> SimpleNamespace:
    """What worker.lora.ServedAdapters asks of an SGLang runner. extra: by how much the inner size of MLPs is larger."""
    layers = []
    for layer in model.model.layers:
        attention, mlp = nn.Module(), nn.Module()
        attention.qkv_proj = _Fused([layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj])
        attention.o_proj = _Fused([layer.self_attn.o_proj])
        mlp.gate_up_proj = _Fused([_padded(layer.mlp.gate_proj, rows=extra), _padded(layer.mlp.up_proj, rows=extra)])
        mlp.down_proj = _Fused([_padded(layer.mlp.down_proj, columns=extra)])
        one = nn.Module()
        one.self_attn, one.mlp = attention, mlp
        layers.append(one)
    inner, outer = nn.Module(), nn.Module()
    inner.layers, outer.model = nn.ModuleList(layers), inner
    return SimpleNamespace(model=outer, dtype=torch.float32, device="cpu")
