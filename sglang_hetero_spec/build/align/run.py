"""`align()`: from answers.jsonl to a drafter's folder; run again after a kill, it goes on and ends the same."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from sglang_hetero_spec.build.align.answers import (
    Split,
    fit_context,
    of_task,
    read_answers,
    relabel,
    split_given,
    split_rows,
)
from sglang_hetero_spec.build.align.errors import AlignError
from sglang_hetero_spec.build.align.files import fingerprint, write_json
from sglang_hetero_spec.build.align.settings import AlignSettings
from sglang_hetero_spec.build.locks import directory_lock

RESULT = "align.json"
CURVE = "curve.jsonl"
WORK = ".work"
GENERAL = "general"
FORMAT, SCHEMA_VERSION = "sglang_hetero_spec.align", 1


@dataclass(frozen=True)
class AlignRequest:
    """What to make a drafter from.

    target, base: folders or hub names. task: None for the general drafter, on the answers of all tasks. base: the
    drafter to go on from; None makes one from `settings.layers` or `settings.shape`. heldout: answers of their own to
    hold out, instead of a share of `answers`. tasks: prompt id -> task, instead of the tasks in `answers`.
    cache: folder of what is kept of the target, which several alignments may share (default: inside `out`).
    tokenizer: folder or hub name of the drafter's own, with `settings.shape` only (a base has one); None: the target's.
    """

    target: str
    answers: Path
    out: Path
    task: str | None = None
    base: str | None = None
    settings: AlignSettings = field(default_factory=AlignSettings)
    heldout: Path | None = None
    tasks: Mapping[str, str | None] | None = None
    cache: Path | None = None
    tokenizer: str | None = None


@dataclass(frozen=True)
class AlignResult:
    """`made` is the content of align.json; `is_new` is False where an earlier run had made it already."""

    out: Path
    made: dict[str, Any]
    is_new: bool


def align(request: AlignRequest, say: Callable[[str], None] = lambda text: None) -> AlignResult:
    """Distil one drafter into `request.out`; HeteroError in one sentence for what cannot be used.

    The folder holds the model (or adapter), the tokenizer, align.json (settings, counts before and after on held-out
    answers, seconds, versions; written last) and curve.jsonl. An interrupted run goes on from its last checkpoint and
    ends with the same weights; a finished one is not repeated.
    """
    # Before torch makes its first CUDA handle: cuBLAS is deterministic only so.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if int(os.environ.get("RANK", "0")) > 0:
        return _align(request, lambda text: None)
    with directory_lock(request.out, "align", "hetero-spec align"):
        return _align(request, say)


def read_split(request: AlignRequest) -> Split:
    """The request's answers, split into train, dev and test; AlignError if they are too few."""
    rows = read_answers(request.answers)
    if request.tasks is not None:
        rows = relabel(rows, request.tasks)
    if not rows:
        raise AlignError(f"{request.answers} has no answers; run `hetero-spec regenerate` first.")
    rows = of_task(rows, request.task, request.answers)
    settings = request.settings
    if request.heldout is None:
        return split_rows(rows, settings.heldout_share, settings.heldout_most)
    heldout = read_answers(request.heldout)
    if request.tasks is not None:
        heldout = relabel(heldout, request.tasks)
    return split_given(rows, of_task(heldout, request.task, request.heldout))


def limited(split: Split, most: int) -> Split:
    """Rows cut at the context; AlignError where nothing is left."""
    parts = Split(*(fit_context(part, most) for part in (split.train, split.dev, split.test)))
    if not (parts.train and parts.dev and parts.test):
        raise AlignError(f"Every prompt fills the context of {most} tokens; raise `max_row_tokens`, or give others.")
    return parts


def _align(request: AlignRequest, say: Callable[[str], None]) -> AlignResult:
    key = _key(request)
    done = request.out / RESULT
    if done.is_file():
        made = _read_result(done)
        if made.get("key") != key:
            raise AlignError(
                f"{request.out} holds a drafter that was made from other answers or settings; choose another --out, or"
                " delete it."
            )
        return AlignResult(request.out, made, False)
    work = request.out / WORK
    _prepare_work(work, key, say)
    from sglang_hetero_spec.build.align.distil import distil
    from sglang_hetero_spec.build.align.quiet import quiet

    began = time.monotonic()
    with quiet():
        made = distil(request, read_split(request), work, say)
    made = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "key": key, **made, "versions": versions()}
    made["seconds"]["this_run"] = round(time.monotonic() - began, 1)
    if int(os.environ.get("RANK", "0")) == 0:
        write_json(done, made)
        shutil.rmtree(work, ignore_errors=True)
    return AlignResult(request.out, made, True)


def _key(request: AlignRequest) -> dict[str, Any]:
    """All that the weights depend on."""
    import hashlib

    def digest(path: Path | None) -> str | None:
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest() if path else None
        except OSError as error:
            raise AlignError(f"{path} cannot be read ({error.strerror}); check the path.") from None

    tasks = None
    if request.tasks is not None:
        tasks = hashlib.sha256(json.dumps(sorted(request.tasks.items())).encode()).hexdigest()
    own = {"tokenizer": fingerprint(request.tokenizer)} if request.tokenizer else {}
    return own | {
        "task": request.task, "settings": request.settings.digest(), "target": fingerprint(request.target),
        "base": fingerprint(request.base) if request.base else None, "answers": digest(request.answers),
        "heldout": digest(request.heldout), "tasks": tasks,
    }  # fmt: skip


def _prepare_work(work: Path, key: dict[str, Any], say: Callable[[str], None]) -> None:
    """Scratch that was made from something else is thrown away."""
    if int(os.environ.get("RANK", "0")) > 0:
        return
    mark = work / "key.json"
    if not work.is_dir() and any(work.parent.glob("*.safetensors")):
        raise AlignError(f"--out {work.parent} holds a model that is not ours; choose another folder.")
    if work.is_dir() and (not mark.is_file() or _read_result(mark) != key):
        say(f"{work}: unfinished work with other answers or settings is thrown away")
        shutil.rmtree(work)
        (work.parent / CURVE).unlink(missing_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    if not mark.is_file():
        write_json(mark, key)


def _read_result(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise AlignError(f"{path} is damaged; delete its folder and run the same command again.") from None
    return found if isinstance(found, dict) else {}


def versions() -> dict[str, str]:
    """Of what the weights were made with."""
    names = ("torch", "transformers", "accelerate", "peft", "sglang-hetero-spec")
    return {"python": sys.version.split()[0], **{name: metadata.version(name) for name in names}}
