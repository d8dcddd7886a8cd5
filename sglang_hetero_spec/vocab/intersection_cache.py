"""Intersections on disk, found again by the hashes of both tokenizers.

A file is the SHA-256 of its key and its body, then the body, an .npz. What does not match is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sglang_hetero_spec.files import replace_whole
from sglang_hetero_spec.vocab.intersection import Intersection, Relation, intersect
from sglang_hetero_spec.vocab.mid_text import MidText

# To be raised whenever `intersect` gives something else for the same tokenizers.
_VERSION = 1
_HASH_BYTES = 32

logger = logging.getLogger(__name__)


def cached_intersection(target: MidText, draft: MidText, folder: Path) -> Intersection:
    """From `folder`, else made and kept there; a disk that refuses costs the time to make it, nothing else."""
    key = json.dumps([_VERSION, target.table.fingerprint, draft.table.fingerprint]).encode()
    path = folder / f"intersection-{hashlib.sha256(key).hexdigest()}.npz"
    found = _read(path, key)
    if found is not None:
        return found
    made = intersect(target, draft)
    body = _body(made)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_whole(path, [_hash(key, body), body])
    except OSError as error:
        logger.warning("%s cannot be written (%s); it is made again at the next start.", path, error.strerror or error)
    return made


def _read(path: Path, key: bytes) -> Intersection | None:
    data = b""
    with contextlib.suppress(OSError):
        data = path.read_bytes()
    body = data[_HASH_BYTES:]
    if not body or data[:_HASH_BYTES] != _hash(key, body):
        return None
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        fields = {name: arrays[name] if arrays[name].ndim else arrays[name].item() for name in arrays.files}
    return Intersection(**{**fields, "relation": Relation(fields["relation"])})


def _body(made: Intersection) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.asarray(value) for name, value in (asdict(made) | _text(made)).items()})
    return buffer.getvalue()


def _text(made: Intersection) -> dict[str, str]:
    return {"relation": made.relation.value}


def _hash(key: bytes, body: bytes) -> bytes:
    return hashlib.sha256(key + body).digest()
