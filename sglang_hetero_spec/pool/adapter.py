"""A peft LoRA adapter on disk: adapter_config.json read strictly, and the shapes of its matrices. Loads nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_hetero_spec.pool.digest import weights_sha256
from sglang_hetero_spec.pool.errors import PoolError, listed, shown
from sglang_hetero_spec.pool.pickles import refuse_pickles
from sglang_hetero_spec.pool.safetensors_file import read_header
from sglang_hetero_spec.pool.strict_json import read_object

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
MAX_RANK = 256
# The linear layers that SGLang fuses into qkv_proj, o_proj, gate_up_proj and down_proj.
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_KEY = re.compile(
    r"base_model\.model\.(?P<module>(?:\w+\.)*layers\.(?P<layer>\d+)\.(?:self_attn|mlp)"
    rf"\.(?P<projection>{'|'.join(PROJECTIONS)}))\.lora_(?P<matrix>[AB])\.weight"
)
_FLOATS = ("F32", "F16", "BF16")

# What the other keys of peft 0.21's LoraConfig may say: these say nothing of what the matrices mean.
_FREE = frozenset(
    ("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
     "r", "target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "use_rslora", "init_lora_weights",
     "layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size", "runtime_config",
     "ensure_weight_tying", "bias")
)  # fmt: skip
# These start by changing the base's own weights (peft, LoraConfig.init_lora_weights).
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class AdapterConfig:
    """scale: what the product of the two matrices is multiplied by."""

    rank: int
    scale: float
    base: str | None


@dataclass(frozen=True)
class Place:
    """Where one matrix of an adapter belongs. module: the base's name of the linear layer; matrix: A or B."""

    module: str
    layer: int
    projection: str
    matrix: str


def place_of(key: str) -> Place | None:
    """What peft's name of a tensor means; None for anything but a matrix of the seven projections."""
    found = _KEY.fullmatch(key)
    if found is None:
        return None
    return Place(found["module"], int(found["layer"]), found["projection"], found["matrix"])


def read_adapter_config(folder: Path, field: str) -> AdapterConfig:
    """The folder's adapter_config.json; PoolError for what is missing or not supported. field: who names the folder."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise PoolError(f"{field} is {folder}, which has no {CONFIG_FILE}; put a peft LoRA adapter there.")
    config = read_object(path)
    if config.get("peft_type") != "LORA":
        raise PoolError(f"{path}: `peft_type` is {shown(config.get('peft_type'))}, not LORA; train a LoRA adapter.")
    _refuse_options(config, path)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise PoolError(
            f"{path}: `r` is {shown(rank)}, and an adapter is served with a rank from 1 to {MAX_RANK}; train it with"
            " a smaller rank."
        )
    if type(alpha) not in (int, float) or not math.isfinite(alpha):
        raise PoolError(f"{path}: `lora_alpha` is {shown(alpha)}; give a number.")
    base = config.get("base_model_name_or_path")
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") is True else rank)
    return AdapterConfig(rank, scale, base if isinstance(base, str) else None)


def named_base(config: AdapterConfig, folder: Path) -> Path | None:
    """The folder that the adapter in `folder` says its base lies in, seen from there; None if that is no folder."""
    if not config.base:
        return None
    try:
        named = (folder / config.base).resolve()
        return named if named.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # a name too long, a loop of links, a zero byte
        return None


def _refuse_options(config: Mapping[str, Any], path: Path) -> None:
    if config.get("bias", "none") != "none":
        raise PoolError(
            f'{path}: `bias` is {shown(config["bias"])}, and biases are not served; train with bias "none".'
        )
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(_CHANGES_BASE):
        raise PoolError(
            f"{path}: `init_lora_weights` is {shown(start)}, which changes the base's own weights; have peft convert"
            " the adapter, or train it with true."
        )
    for key, value in config.items():
        if key not in _FREE and value not in (None, False, {}, [], "megatron.core"):
            raise PoolError(
                f"{path}: `{key}` is {shown(value)}, which is not served; train a plain LoRA adapter without it."
            )


def check_adapter(folder: Path, base: Path, field: str, *, compare_weights: bool = True) -> AdapterConfig:
    """The adapter's settings, once it is sure that it fits the checkpoint in `base`. PoolError in one sentence.

    compare_weights: with those of the base that it names, which takes as long as reading both.
    """
    config = read_adapter_config(folder, field)
    refuse_pickles(folder)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise PoolError(f"{field} is {folder}, which has no {WEIGHTS_FILE}; save the adapter as safetensors.")
    _check_matrices(read_header(path), path, config.rank, base)
    if compare_weights:
        _check_named_base(config, folder, base)
    return config


def _check_matrices(header: Mapping[str, Any], path: Path, rank: int, base: Path) -> None:
    shapes = _base_shapes(base)
    found: dict[str, set[str]] = {}
    for key, entry in header.items():
        place = place_of(key)
        if place is None:
            raise PoolError(
                f"{path} has `{key[:120]}`, and only LoRA matrices of {listed(PROJECTIONS)} are served; train the"
                " adapter on those."
            )
        if place.module not in shapes:
            raise PoolError(
                f"{path} adapts `{place.module}`, which the base {base} has not; give the adapter of this base, or name"
                " its own base."
            )
        size_out, size_in = shapes[place.module]
        wanted = [rank, size_in] if place.matrix == "A" else [size_out, rank]
        if entry["shape"] != wanted:
            raise PoolError(
                f"{path}: `{key}` has the shape {entry['shape']}, and rank {rank} on the base {base} needs {wanted};"
                " give the adapter of this base, or name its own base."
            )
        if entry.get("dtype") not in _FLOATS:
            raise PoolError(f"{path}: `{key}` is stored as {entry['dtype']}; save it as one of {listed(_FLOATS)}.")
        if rank > min(size_out, size_in):
            raise PoolError(
                f"{path}: rank {rank} is larger than `{place.module}` of the base, {size_out} x {size_in}; train it"
                " with a smaller rank."
            )
        found.setdefault(place.module, set()).add(place.matrix)
    for module, matrices in found.items():
        if len(matrices) < 2:
            raise PoolError(f"{path} has one matrix of two for `{module}`; save the adapter again.")


def _base_shapes(base: Path) -> dict[str, tuple[int, int]]:
    """[out, in] of each linear layer of a checkpoint, by its name."""
    shapes = {}
    for path in sorted(base.glob("*.safetensors")):
        for key, entry in read_header(path).items():
            if key.endswith(".weight") and len(entry["shape"]) == 2:
                shapes[key.removesuffix(".weight")] = (entry["shape"][0], entry["shape"][1])
    return shapes


def _check_named_base(config: AdapterConfig, folder: Path, base: Path) -> None:
    """Only a folder that is still there can be compared: pools are moved, and hub names say nothing of a folder."""
    other = named_base(config, folder)
    if other is None or not any(other.glob("*.safetensors")) or other == base.resolve():
        return
    if weights_sha256(other) != weights_sha256(base):
        raise PoolError(
            f"{folder / CONFIG_FILE}: `base_model_name_or_path` is {shown(config.base)}, whose weights are not those of"
            f" the base {base}; name that drafter as `base`, or train the adapter on this one."
        )
