"""Checks of a draft model's folder: files, architecture, hashes. Loads nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sglang_hetero_spec.pool.architectures import refuse_architecture
from sglang_hetero_spec.pool.digest import weights_sha256
from sglang_hetero_spec.pool.errors import PoolError, listed, shown
from sglang_hetero_spec.pool.pickles import refuse_pickles
from sglang_hetero_spec.pool.safetensors_file import read_header
from sglang_hetero_spec.pool.strict_json import read_object

MAX_INDEX_BYTES = 256 << 20


def check_checkpoint(folder: Path, field: str) -> dict[str, Any]:
    """The folder's config.json, once folder and weights passed. `field` is "<file>: `drafters[i].path`"."""
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise PoolError(f"{field} is {folder}, which has no config.json; put the draft model's checkpoint there.")
    refuse_pickles(folder)
    config = read_object(config_path)
    refuse_architecture(config, config_path)
    _check_weights(folder, field)
    return config


def check_weights_hash(folder: Path, expected: str | None, where: str) -> None:
    """PoolError if a hash is given and the weights have another. `where` is "<file>: `drafters[i]"."""
    if expected is None:
        return
    found = weights_sha256(folder)
    if found != expected:
        raise PoolError(
            f"{where}.weights_sha256` is {expected}, but the weights in {folder} have {found}; restore the"
            " file, or correct the hash if the change is wanted."
        )


def vocab_size(config: dict[str, Any]) -> int | None:
    """`vocab_size` of a config, also of a nested text model; None if it gives none."""
    text_config = config.get("text_config")
    size = config.get("vocab_size", text_config.get("vocab_size") if isinstance(text_config, dict) else None)
    return size if type(size) is int and size > 0 else None


def _check_weights(folder: Path, field: str) -> None:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise PoolError(f"{field} is {folder}, which has no *.safetensors file; save the weights as safetensors.")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        missing = _indexed(index) - {file.name for file in files}
        if missing:
            raise PoolError(f"{index} names {listed(sorted(missing))}, missing in {folder}; copy the whole checkpoint.")
    for file in files:
        read_header(file)


def _indexed(index: Path) -> set[str]:
    shards = read_object(index, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise PoolError(f"{index}: `weight_map` is {shown(shards)}; save the checkpoint again.")
    return set(shards.values())
