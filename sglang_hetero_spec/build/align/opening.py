"""From a request to its bench: models are loaded, answers checked, and read in the drafter's vocabulary."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from sglang_hetero_spec.build.align.answers import Row, Split
from sglang_hetero_spec.build.align.batches import AnswerHead
from sglang_hetero_spec.build.align.bench import Bench
from sglang_hetero_spec.build.align.errors import AlignError
from sglang_hetero_spec.build.align.models import Device, load_config, load_model, same_vocabulary
from sglang_hetero_spec.build.align.own_vocab import OwnVocab, tokenizer_folder
from sglang_hetero_spec.build.align.run import AlignRequest, limited

_LONGEST = 1 << 20


def open_bench(request: AlignRequest, split: Split, work: Path, say: Callable[[str], None]) -> Bench:
    settings = request.settings
    if settings.lora is not None and request.base is None:
        raise AlignError("`lora` puts an adapter on a base drafter; name one with --base.")
    device = Device.find(settings.bf16)
    # The first one decides for the process: left to itself it would not join other processes on CPUs.
    state = PartialState(cpu=device.name == "cpu")
    if state.num_processes != int(os.environ.get("WORLD_SIZE", "1")):
        raise AlignError(
            f"{os.environ['WORLD_SIZE']} processes were launched, but accelerate joined {state.num_processes}; start"
            " them by `accelerate launch` with --multi_gpu (or --cpu and one process)."
        )
    target = load_model(request.target, device.dtype, "--target").to(device.name).eval().requires_grad_(False)
    _check_ids(request, split, target)
    said, read = _contexts(request, target.config)
    split = limited(split, said)
    own = _own_vocab(request, split, target, work)
    if own is not None and settings.exits is not None:
        raise AlignError("`exits` makes a sorted drafter, which reads the target's tokens; give a base that has them.")
    if own is not None:
        split = Split(*(own.rows(part) for part in _parts(split)))
    split = limited(split, read)
    return Bench(request, settings, split, target, AnswerHead(target), device, own, work, say)


def _own_vocab(request: AlignRequest, split: Split, target: Any, work: Path) -> OwnVocab | None:
    """None where the drafter has the target's vocabulary; AlignError for settings that do not go with its own."""
    settings, name = request.settings, request.base or request.tokenizer
    if request.tokenizer is not None:
        _check_fresh(request)
    if name is None:
        return None
    drafter = tokenizer_folder(name, work / "drafter-tokenizer")
    theirs = tokenizer_folder(request.target, work / "target-tokenizer")
    if drafter is None and request.tokenizer is not None:
        raise AlignError(f"--tokenizer {name} has no tokenizer.json; give the folder of a tokenizer.")
    if drafter is None or theirs is None or same_vocabulary(str(drafter), str(theirs)):
        return None
    size = load_config(request.base, "--base").vocab_size if request.base else None
    sizes = (target.config.vocab_size, size)
    own = OwnVocab.find(theirs, drafter, settings.vocab, split.train, sizes, work / "pairing")
    if not own.by_target_tokens and settings.loss not in ("ce", "auto"):
        raise AlignError(
            f"{name} has not the target's vocabulary, and `loss: {settings.loss}` compares its tokens one by one with"
            f" the target's, which a drafter for `vocab: {own.mode}` does not propose; set `loss: ce`."
        )
    return own


def _check_fresh(request: AlignRequest) -> None:
    if request.base is not None or request.settings.shape is None:
        problem = (
            f"{request.base} has a tokenizer of its own" if request.base else "the target's layers read its tokens"
        )
        raise AlignError(f"--tokenizer is for a fresh drafter: {problem}; give `shape` and no --base, or leave it out.")


def _contexts(request: AlignRequest, target_config: Any) -> tuple[int, int]:
    """How many tokens the target, which wrote the answers, and the drafter can have in a row, each in its own."""
    settings = request.settings
    said = getattr(target_config, "max_position_embeddings", None) or _LONGEST
    read = said if settings.shape is None else settings.shape.max_position_embeddings or said
    if request.base:
        read = getattr(load_config(request.base, "--base"), "max_position_embeddings", None) or _LONGEST
    return said, min(settings.max_row_tokens or _LONGEST, read)


def _parts(split: Split) -> tuple[Sequence[Row], ...]:
    return split.train, split.dev, split.test


def _check_ids(request: AlignRequest, split: Split, target: Any) -> None:
    highest = max(max(*row.prompt, *row.answer) for part in _parts(split) for row in part)
    size = target.config.vocab_size
    if highest >= size:
        raise AlignError(
            f"{request.answers} has the token id {highest}, but the target {request.target} has {size} tokens; give"
            " the target that wrote the answers."
        )
