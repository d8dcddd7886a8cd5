"""A target that costs more and computes the same: wider feed-forward layers (zero columns) and identity layers.

A figure that was taken with such a target must say so.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 2
_NOTE = "hetero_costly.json"
_DTYPES = {"BF16": 2, "F16": 2, "F32": 4}


@dataclass(frozen=True)
class CostlyTarget:
    """`path` loads like the source; `num_params` is what it has; `layers` counts the original and the identity ones."""

    path: Path
    num_params: int
    source_params: int
    layers: int
    intermediate: int


@dataclass(frozen=True)
class _Plan:
    hidden: int
    heads_width: int
    kv_width: int
    layers: int
    intermediate: int
    source_layers: int
    source_intermediate: int

    @property
    def layer_params(self) -> int:
        attention = 2 * self.hidden * (self.heads_width + self.kv_width)
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden


def make_costly(target_dir: str | Path, out_dir: str | Path, num_params: int = 300_000_000) -> CostlyTarget:
    """Writes (once) to `out_dir` a Llama of about `num_params` parameters with the function of `target_dir`.

    Found again where `out_dir` already holds the one made of the same source, and replaced atomically otherwise.
    Raises ValueError for a source that is not a plain Llama in one safetensors file, or that is larger already.
    """
    source, out = Path(target_dir), Path(out_dir)
    config, tensors = _read(source)
    embedding = sum(math.prod(t["shape"]) for name, t in tensors.items() if "layers." not in name)
    plan = _plan(config, embedding, num_params)
    total = embedding + plan.layers * plan.layer_params
    made = CostlyTarget(
        out, total, sum(math.prod(t["shape"]) for t in tensors.values()), plan.layers, plan.intermediate
    )
    key = {"format": FORMAT, "source": _digest(source), "num_params": num_params}
    note = out / _NOTE
    if note.is_file() and json.loads(note.read_text(encoding="utf-8")) == key:
        return made
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write(source, part, config, tensors, plan)
        (part / _NOTE).write_text(json.dumps(key), encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return made


def _read(source: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    config_file, weights = source / "config.json", source / "model.safetensors"
    if not config_file.is_file() or not weights.is_file():
        raise ValueError(f"{source} has no config.json and model.safetensors; give the directory of one small target")
    config = json.loads(config_file.read_text(encoding="utf-8"))
    if config.get("architectures") != ["LlamaForCausalLM"] or config.get("attention_bias") or config.get("mlp_bias"):
        raise ValueError(f"{source} is not a LlamaForCausalLM without biases; only such a target can be made costly")
    return config, _header(weights)[0]


def _header(weights: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Entries of a safetensors file, and the offset at which its data begins."""
    with weights.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return header, 8 + size


def _digest(source: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in source.iterdir() if p.is_file()):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _plan(config: dict[str, Any], outside: int, num_params: int) -> _Plan:
    """Few, wide layers: twice the source's (so the KV cache stays small), each as wide as the parameters need."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    kv_width = config.get("num_key_value_heads", heads) * head_dim
    layers = 2 * config["num_hidden_layers"]
    fixed = 2 * hidden * (heads * head_dim + kv_width) + 2 * hidden
    room = (num_params - outside) // layers - fixed
    intermediate = room // (3 * hidden) // 64 * 64
    if intermediate < config["intermediate_size"]:
        raise ValueError(f"num_params={num_params} is less than this target needs twice over; ask for more")
    return _Plan(
        hidden,
        heads * head_dim,
        kv_width,
        layers,
        intermediate,
        config["num_hidden_layers"],
        config["intermediate_size"],
    )


def _shapes(plan: _Plan) -> dict[str, tuple[int, ...]]:
    hidden, wide = plan.hidden, plan.intermediate
    return {
        "self_attn.q_proj": (plan.heads_width, hidden), "self_attn.k_proj": (plan.kv_width, hidden),
        "self_attn.v_proj": (plan.kv_width, hidden), "self_attn.o_proj": (hidden, plan.heads_width),
        "mlp.gate_proj": (wide, hidden), "mlp.up_proj": (wide, hidden), "mlp.down_proj": (hidden, wide),
        "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
    }  # fmt: skip


def _write(source: Path, part: Path, config: dict[str, Any], tensors: dict[str, dict[str, Any]], plan: _Plan) -> None:
    for path in source.iterdir():
        if path.is_file() and path.name not in ("config.json", "model.safetensors", _NOTE):
            shutil.copyfile(path, part / path.name)
    wide = {**config, "num_hidden_layers": plan.layers, "intermediate_size": plan.intermediate}
    (part / "config.json").write_text(json.dumps(wide, indent=2), encoding="utf-8")
    kinds = {t["dtype"] for t in tensors.values()}
    if len(kinds) != 1 or not kinds <= set(_DTYPES):
        raise ValueError(
            f"{source} holds weights of types {sorted(kinds)}; one of {sorted(_DTYPES)} throughout is needed"
        )
    kind = kinds.pop()
    layer_shapes = {
        f"model.layers.{i}.{name}.weight": shape for i in range(plan.layers) for name, shape in _shapes(plan).items()
    }
    shapes = {name: tuple(t["shape"]) for name, t in tensors.items() if "layers." not in name} | layer_shapes
    _stream(source / "model.safetensors", part / "model.safetensors", shapes, kind, plan)


def _stream(source: Path, out: Path, shapes: dict[str, tuple[int, ...]], kind: str, plan: _Plan) -> None:
    """One tensor in memory at a time; data follows the header in the header's order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * _DTYPES[kind]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    old, data = _header(source)
    with source.open("rb") as read, out.open("wb") as write:
        write.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            for block in _tensor(read, data, old.get(name), name, shape, kind, plan):
                write.write(block.tobytes())


def _tensor(
    read: Any, data: int, entry: dict[str, Any] | None, name: str, shape: tuple[int, ...], kind: str, plan: _Plan
) -> Iterator[np.ndarray]:
    """Bits of one tensor: the source's, padded; or those of an identity layer (random, its two outputs zero)."""
    bits = np.uint16 if _DTYPES[kind] == 2 else np.uint32
    if entry is None:
        yield _identity(name, shape, kind)
        return
    begin, stop = entry["data_offsets"]
    read.seek(data + begin)
    old = np.frombuffer(read.read(stop - begin), dtype=bits).reshape(entry["shape"])
    if old.shape == shape:
        yield old
        return
    # Extra gate and up rows are random; the zero columns of down_proj keep them from the output.
    wide = np.zeros(shape, dtype=bits) if "down_proj" in name else _noise(name, shape, kind)
    wide[tuple(slice(0, n) for n in old.shape)] = old
    yield wide


def _identity(name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
    if name.endswith("layernorm.weight"):
        return _bits(np.ones(shape, dtype=np.float32), kind)
    if "o_proj" in name or "down_proj" in name:
        return _bits(np.zeros(shape, dtype=np.float32), kind)
    return _noise(name, shape, kind)


def _noise(name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    values = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return _bits(values * np.float32(0.02), kind)


def _bits(values: np.ndarray, kind: str) -> np.ndarray:
    """float32 as the stored type's bits (bfloat16 cut off, not rounded: nothing depends on these values)."""
    if kind == "BF16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(np.float16).view(np.uint16) if kind == "F16" else values.view(np.uint32)
