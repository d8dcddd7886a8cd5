"""router.json and router.safetensors: written in one step each, read strictly. Nothing pickled is ever read."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from sglang_hetero_spec.pool.errors import PoolError, shown
from sglang_hetero_spec.pool.strict_json import parse_object, read_text
from sglang_hetero_spec.router.errors import RouterError
from sglang_hetero_spec.router.schema import CONFIG_NAME, FORMAT, SCHEMA_VERSION, WEIGHTS_NAME, RouterConfig

_MAX_CONFIG_BYTES = 1 << 20
_MAX_WEIGHT_BYTES = 1 << 30
_MAX_WEIGHT = 1e6  # far above any fit, far below where float32 sums overflow
_AGAIN = "fit the router again"


@dataclass(frozen=True)
class RouterWeights:
    """`coefficients`: float32 [num_buckets, num_classes]. There are no intercepts.

    A prompt of which nothing is known then scores 0 for every task and is left to the fallback; an
    intercept would give it to the task that is known by what it lacks, and be sure of it.
    """

    coefficients: np.ndarray


def load_router_files(folder: Path) -> tuple[RouterConfig, RouterWeights]:
    """Both files of a router; RouterError says in one sentence what is wrong with them."""
    config = read_config(folder / CONFIG_NAME)
    return config, _read_weights(folder / WEIGHTS_NAME, config)


def save_router_files(folder: Path, config: RouterConfig, weights: RouterWeights) -> None:
    """Write both files, the configuration last; its `weights_sha256` is set here."""
    # safetensors stores the buffer as it lies: a Fortran-ordered array would come back scrambled.
    tensors = {"coefficients": np.ascontiguousarray(weights.coefficients, dtype=np.float32)}
    data = safetensors_numpy.save(tensors)
    config = config.model_copy(update={"weights_sha256": hashlib.sha256(data).hexdigest()})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / WEIGHTS_NAME, data)
        text = json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=True)
        _replace(folder / CONFIG_NAME, f"{text}\n".encode("ascii"))
    except OSError as error:
        raise RouterError(f"{folder} cannot be written ({error.strerror}); choose a folder that can be.") from None


def read_config(path: Path) -> RouterConfig:
    """router.json alone."""
    try:
        text = read_text(path, _MAX_CONFIG_BYTES)
        raw = parse_object(text, path)
    except PoolError as error:
        raise RouterError(str(error)) from None
    _check_version(raw, path)
    try:
        config = RouterConfig.model_validate_json(text)
    except ValidationError as error:
        raise RouterError(_sentence(error.errors(include_url=False)[0], path)) from None
    if len(set(config.classes)) != len(config.classes):
        raise RouterError(f"{path}: `classes` names a task twice; {_AGAIN}.")
    return config


def _check_version(raw: dict[str, Any], path: Path) -> None:
    if raw.get("format") != FORMAT:
        raise RouterError(
            f"{path}: `format` is {shown(raw.get('format'))}, not {shown(FORMAT)}; is this a router's file?"
        )
    version = raw.get("schema_version")
    if type(version) is not int or version < 1:
        raise RouterError(f"{path}: `schema_version` is {shown(version)}; write {SCHEMA_VERSION}, a whole number.")
    if version > SCHEMA_VERSION:
        raise RouterError(
            f"{path}: `schema_version` is {version}, newer than {SCHEMA_VERSION}, the newest that this version"
            f" reads; upgrade sglang-hetero-spec, or {_AGAIN} with this version."
        )


def _sentence(error: Any, path: Path) -> str:
    field = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{path}: `{field}` is missing; {_AGAIN}."
    if error["type"] == "extra_forbidden":
        return f"{path}: `{field}` is not a key that this version knows; remove it, or {_AGAIN}."
    reason = error["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    return f"{path}: `{field}` is {shown(error['input'])} ({reason}); {_AGAIN}."


def _read_weights(path: Path, config: RouterConfig) -> RouterWeights:
    data = _read_bytes(path)
    if hashlib.sha256(data).hexdigest() != config.weights_sha256:
        raise RouterError(
            f"{path} is not the file that {CONFIG_NAME} names in `weights_sha256` (truncated, changed or of"
            f" another fit); copy both files again, or {_AGAIN}."
        )
    try:
        tensors = safetensors_numpy.load(data)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RouterError(
            f"{path} is not a safetensors file that numpy can read ({shown(str(error))}); {_AGAIN}."
        ) from None
    if list(tensors) != ["coefficients"]:
        raise RouterError(f'{path} holds the tensors {shown(sorted(tensors))}, not ["coefficients"]; {_AGAIN}.')
    shape = (2 << config.features.bucket_bits, len(config.classes))
    _check_tensor(f"{path}: `coefficients`", tensors["coefficients"], shape)
    return RouterWeights(tensors["coefficients"])


def _read_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_WEIGHT_BYTES:
            raise RouterError(f"{path} is larger than {_MAX_WEIGHT_BYTES} bytes; {_AGAIN}.")
        return path.read_bytes()
    except OSError as error:
        raise RouterError(f"{path} cannot be read ({error.strerror}); check the path, or {_AGAIN}.") from None


def _check_tensor(what: str, tensor: np.ndarray, shape: tuple[int, ...]) -> None:
    if tensor.dtype != np.float32:
        raise RouterError(f"{what} is {tensor.dtype}, not float32; {_AGAIN}.")
    if tensor.shape != shape:
        raise RouterError(
            f"{what} has shape {list(tensor.shape)}, not {list(shape)} as `classes` and `features` of"
            f" {CONFIG_NAME} say; {_AGAIN}."
        )
    if not np.isfinite(tensor).all() or np.abs(tensor).max() > _MAX_WEIGHT:
        raise RouterError(f"{what} has a value that is not finite or beyond {_MAX_WEIGHT:g}; {_AGAIN}.")


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
