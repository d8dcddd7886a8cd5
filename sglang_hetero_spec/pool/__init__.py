"""The pool on disk: manifest, drafters, router; read and checked without torch and without sglang."""

from __future__ import annotations

from sglang_hetero_spec.pool.digest import file_sha256, weights_sha256
from sglang_hetero_spec.pool.errors import PoolError
from sglang_hetero_spec.pool.load import load_pool
from sglang_hetero_spec.pool.model import DrafterSpec, Pool, RouterSpec, TargetSpec, TaskSpec
from sglang_hetero_spec.pool.safetensors_file import CheckpointSize, checkpoint_size
from sglang_hetero_spec.pool.schema import FORMAT, MANIFEST_NAME, SCHEMA_VERSION
from sglang_hetero_spec.pool.target_folder import local_folder
from sglang_hetero_spec.pool.vocabulary import tokenizer_sha256
from sglang_hetero_spec.pool.write import write_pool_manifest

__all__ = [
    "FORMAT",
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "CheckpointSize",
    "DrafterSpec",
    "Pool",
    "PoolError",
    "RouterSpec",
    "TargetSpec",
    "TaskSpec",
    "checkpoint_size",
    "file_sha256",
    "load_pool",
    "local_folder",
    "tokenizer_sha256",
    "weights_sha256",
    "write_pool_manifest",
]
