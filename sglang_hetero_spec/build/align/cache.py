"""What is kept of the target on disk: shards of answer positions, named by the hash of what they were made from.

A shard is whole or absent, and holds rows of one task only, so that the drafters of several tasks, and the general
one, share a folder (also when they are trained at the same time).
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sglang_hetero_spec.build.align.answers import Row, by_task
from sglang_hetero_spec.build.align.batches import AnswerHead, as_tensors, bucketed
from sglang_hetero_spec.build.align.errors import AlignStopped
from sglang_hetero_spec.build.align.losses import log_probs

Kind = Literal["hidden", "topk"]
_SHARD_TOKENS = 1 << 16


@dataclass(frozen=True)
class CacheSpec:
    """What a shard's contents depend on, besides its rows. `target`: its fingerprint; `dtype`: it was run in.

    only: hash of the ids that `topk` chooses from, empty for all.
    """

    kind: Kind
    target: str
    dtype: str
    topk: int
    size: int
    only: str = ""

    def name(self, rows: Sequence[Row]) -> str:
        what = f"{self.kind} {self.target} {self.dtype} {self.topk if self.kind == 'topk' else 0} {self.size}"
        digest = hashlib.sha256((what + (self.only if self.kind == "topk" else "")).encode())
        for row in rows:
            digest.update(f"{row.id} {len(row.prompt)} {len(row.answer)} ".encode())
            digest.update(array("q", [*row.prompt, *row.answer]).tobytes())
        return f"{self.kind}-{digest.hexdigest()[:32]}.safetensors"


class Shards:
    """Reads rows of a filled cache."""

    def __init__(self, places: Mapping[str, tuple[Path, int]]) -> None:
        self._places = places
        self._open: dict[Path, Any] = {}

    def read(self, name: str, rows: Sequence[Row]) -> Tensor:
        """Tensor `name` at the answer positions of `rows`, one after the other: [N, ...]."""
        parts = []
        for row in rows:
            path, start = self._places[row.id]
            if path not in self._open:
                self._open[path] = safe_open(path, "pt")
            parts.append(self._open[path].get_slice(name)[start : start + len(row.answer)])
        return torch.cat(parts)


def estimated_bytes(rows: Sequence[Row], spec: CacheSpec, hidden_size: int) -> int:
    """Size on disk."""
    width = 2 * hidden_size if spec.kind == "hidden" else 8 * spec.topk
    return width * sum(len(row.answer) for row in rows)


def fill(
    folder: Path,
    rows: Sequence[Row],
    spec: CacheSpec,
    model: Any,
    head: AnswerHead,
    batch_tokens: int,
    say: Callable[[str], None],
) -> Shards:
    """Run the target where a shard is missing; AlignStopped if the disk does not take it."""
    folder.mkdir(parents=True, exist_ok=True)
    places: dict[str, tuple[Path, int]] = {}
    shards = list(_sharded(rows))
    for number, shard in enumerate(shards, start=1):
        path = folder / spec.name(shard)
        if not path.is_file():
            say(f"target on answers: part {number} of {len(shards)}")
            _write(path, _compute(shard, spec, model, head, batch_tokens))
        start = 0
        for row in shard:
            places[row.id] = (path, start)
            start += len(row.answer)
    return Shards(places)


def _sharded(rows: Sequence[Row]) -> Iterator[list[Row]]:
    for mine in by_task(rows).values():
        shard: list[Row] = []
        tokens = 0
        for row in mine:
            shard.append(row)
            tokens += len(row.answer)
            if tokens >= _SHARD_TOKENS:
                yield shard
                shard, tokens = [], 0
        if shard:
            yield shard


@torch.inference_mode()
def _compute(
    rows: Sequence[Row], spec: CacheSpec, model: Any, head: AnswerHead, batch_tokens: int
) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    found: list[dict[str, Tensor]] = [{} for _ in rows]
    for batch in bucketed(rows, batch_tokens):
        tensors = {name: value.to(device) for name, value in as_tensors([rows[i] for i in batch]).items()}
        if spec.kind == "hidden":
            made = {"hidden": head.hidden(model, tensors["input_ids"], tensors["keep"]).bfloat16()}
        else:
            logits = log_probs(head.logits(model, tensors["input_ids"], tensors["keep"]), spec.size)
            top = logits.topk(min(spec.topk, spec.size), dim=-1)
            made = {"logp": top.values, "ids": top.indices.int()}
        sizes = [len(rows[i].answer) for i in batch]
        for name, value in made.items():
            for index, part in zip(batch, value.cpu().split(sizes), strict=True):
                found[index][name] = part
    return {name: torch.cat([part[name] for part in found]).contiguous() for name in found[0]}


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, part)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise AlignStopped(
            f"{path.parent} cannot take what is kept of the target ({str(error)[:120]}); free disk space, or set"
            " `cache: none`, and run the same command again."
        ) from None
