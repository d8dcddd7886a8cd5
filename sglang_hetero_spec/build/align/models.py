"""Targets and drafters in transformers: loading, cutting out of the target, making fresh ones, LoRA on a base."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sglang_hetero_spec.build.align.errors import AlignError
from sglang_hetero_spec.build.align.settings import LoraSettings, ShapeSettings
from sglang_hetero_spec.pool import PoolError
from sglang_hetero_spec.pool.vocabulary import differing_ids, has_tokenizer, read_vocabulary


@dataclass(frozen=True)
class Device:
    """Where training runs, in bfloat16 or not."""

    name: str
    bf16: bool

    @property
    def dtype(self) -> torch.dtype:
        """Of models that are not trained."""
        return torch.bfloat16 if self.bf16 else torch.float32

    @classmethod
    def find(cls, bf16: bool | None) -> Device:
        """CUDA where there is any. `bf16` None: where the hardware computes in it."""
        if torch.cuda.is_available():
            return cls("cuda", torch.cuda.is_bf16_supported() if bf16 is None else bf16)
        return cls("cpu", torch.cpu._is_avx512_bf16_supported() if bf16 is None else bf16)


def load_model(name_or_path: str, dtype: torch.dtype, flag: str) -> Any:
    """A causal model from a folder or the hub; AlignError if it does not load. `flag`: who named it."""
    from transformers import AutoModelForCausalLM

    with _told(name_or_path, flag):
        return AutoModelForCausalLM.from_pretrained(name_or_path, dtype=dtype)


def load_config(name_or_path: str, flag: str) -> Any:
    """The config alone; AlignError if it does not load."""
    from transformers import AutoConfig

    with _told(name_or_path, flag):
        return AutoConfig.from_pretrained(name_or_path)


@contextmanager
def _told(name_or_path: str, flag: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise AlignError(
            f"{flag} {name_or_path} does not load ({type(error).__name__}: {line}); give the folder of a causal"
            " language model that transformers loads."
        ) from None


def same_vocabulary(drafter: str, target: str) -> bool:
    """Whether every id means the same token in both; folders without a tokenizer.json count as the target's."""
    ours, theirs = Path(drafter), Path(target)
    if not (ours.is_dir() and theirs.is_dir() and has_tokenizer(ours) and has_tokenizer(theirs)):
        return True
    try:
        return not differing_ids(read_vocabulary(ours), read_vocabulary(theirs))
    except PoolError as error:
        raise AlignError(str(error)) from None


def cut_model(target: Any, layers: Sequence[int], seed: int) -> Any:
    """The target with only `layers` of it (in this order), in float32."""
    from transformers import AutoModelForCausalLM, set_seed

    name, count = _layer_list(target)
    if not layers or max(layers) >= count:
        raise AlignError(
            f"`layers` is {list(layers)}, but the target has {count} layers (0 to {count - 1}); correct it."
        )
    set_seed(seed)
    config = _cut_config(target.config, layers, count)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    pattern = re.compile(rf"^{re.escape(name)}\.(\d+)\.")
    places = {old: new for new, old in enumerate(layers)}
    state = {}
    for key, value in target.state_dict().items():
        found = pattern.match(key)
        if found is None:
            state[key] = value
        elif int(found.group(1)) in places:
            state[f"{name}.{places[int(found.group(1))]}.{key[found.end() :]}"] = value
    model.load_state_dict(state)
    return model


def num_layers(model: Any) -> int:
    return _layer_list(model)[1]


def layer_list(model: Any) -> nn.ModuleList:
    return model.get_submodule(_layer_list(model)[0])


def _layer_list(model: Any) -> tuple[str, int]:
    count = model.config.num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, count
    raise AlignError(f"The layers of {type(model).__name__} were not found; give a base drafter, or `shape`.")


def _cut_config(config: Any, layers: Sequence[int], count: int) -> Any:
    cut = copy.deepcopy(config)
    for name, value in config.to_dict().items():
        # layer_types and the like: one entry for each layer.
        if isinstance(value, list) and len(value) == count and count > 1:
            setattr(cut, name, [value[layer] for layer in layers])
    cut.num_hidden_layers = len(layers)
    return cut


def fresh_model(target_config: Any, shape: ShapeSettings, seed: int, own: Mapping[str, Any] | None = None) -> Any:
    """A new model of `shape` with the target's vocabulary, context and special tokens, in float32.

    own: fields of the config that say otherwise.
    """
    from transformers import AutoModelForCausalLM, set_seed

    set_seed(seed)
    try:
        model = AutoModelForCausalLM.from_config(_shaped(target_config, shape, own or {}), dtype=torch.float32)
    except Exception as error:
        raise AlignError(f"`shape` makes no model ({' '.join(str(error).split())[:160]}); correct it.") from None
    _spread(model, seed)
    return model


def _shaped(target_config: Any, shape: ShapeSettings, own: Mapping[str, Any]) -> Any:
    from transformers import LlamaConfig

    fields = {**shape.model_dump(exclude={"architecture"}, exclude_none=True), **own}
    if shape.architecture == "target":
        config = copy.deepcopy(target_config)
        for name, value in fields.items():
            setattr(config, name, value)
        if config.to_dict().get("layer_types"):
            config.layer_types = config.layer_types[: shape.num_hidden_layers]
        return config
    names = ("vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")
    shared = {name: getattr(target_config, name, None) for name in names}
    theta = (getattr(target_config, "rope_parameters", None) or {}).get("rope_theta", 10000.0)
    return LlamaConfig(**{**shared, **fields, "rope_parameters": {"rope_type": "default", "rope_theta": theta}})


def _spread(model: Any, seed: int) -> None:
    """Weights scaled by their fan-in, so that models of any width start alike; projections into the stream smaller."""
    generator = torch.Generator().manual_seed(seed)
    depth = (2 * num_layers(model)) ** 0.5
    outer = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings()) if m is not None}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                std = 0.02 if id(weight) in outer else weight.shape[1] ** -0.5
                deep = name.endswith(("o_proj.weight", "down_proj.weight"))
                weight.normal_(0.0, std / (depth if deep else 1.0), generator=generator)


def with_lora(base: Any, lora: LoraSettings, seed: int) -> Any:
    """The base, frozen, with a fresh adapter on it."""
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    set_seed(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout,
        target_modules=lora.target_modules or "all-linear",
    )  # fmt: skip
    try:
        model = get_peft_model(base, config)
    except ValueError as error:
        raise AlignError(f"`lora` does not fit the base drafter ({' '.join(str(error).split())[:160]}).") from None
    # A relative name is read from the adapter's folder (pool.adapter.named_base), not from where this runs.
    if base.name_or_path and Path(base.name_or_path).is_dir():
        config.base_model_name_or_path = str(Path(base.name_or_path).resolve())
    return model


def head_params(model: Any) -> int:
    """Parameters that one forward step reads: all but an input embedding of its own."""
    inner, outer = model.get_input_embeddings(), model.get_output_embeddings()
    tied = outer is not None and inner.weight is outer.weight
    return sum(p.numel() for p in model.parameters()) - (0 if tied else inner.weight.numel())
