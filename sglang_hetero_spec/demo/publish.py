"""From a built pool to what ships with the package: the pool beside its target, and made.json, how it was made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from sglang_hetero_spec.build.layout import GENERAL, Layout
from sglang_hetero_spec.demo.data import TASK_NAMES
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.files import write_json
from sglang_hetero_spec.pool import MANIFEST_NAME


def publish(built: Path, out: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Copy what is served from the pool `built` to out/pool; about: what made.json says first. Returns made.json."""
    pool = out / "pool"
    shutil.rmtree(pool, ignore_errors=True)
    for name in ("drafters", "router"):
        shutil.copytree(built / name, pool / name)
    shutil.copyfile(built / "tasks.json", pool / "tasks.json")
    manifest = json.loads((built / MANIFEST_NAME).read_text(encoding="utf-8"))
    manifest["target"]["name_or_path"] = "../target"
    for task in manifest["tasks"]:
        task["name"] = TASK_NAMES.get(task["id"], task["name"])
    write_json(pool / MANIFEST_NAME, manifest, HeteroError)
    made = about | drafters_made(Layout(built), [task["id"] for task in manifest["tasks"]])
    write_json(out / "made.json", made, HeteroError)
    return made


def drafters_made(layout: Layout, tasks: list[str]) -> dict[str, Any]:
    """seconds: of each training. heldout: task -> drafter ("task" or "general") -> counts on answers never trained on,
    with their accept rate and length."""
    made = {name: json.loads((layout.drafter(name) / "align.json").read_text()) for name in (GENERAL, *tasks)}
    return {
        "versions": made[GENERAL]["versions"],
        "seconds": {name: align["seconds"]["training"] for name, align in made.items()},
        "heldout": {task: {"task": _counts(made[task], task), GENERAL: _counts(made[GENERAL], task)} for task in tasks},
    }


def _counts(align: dict[str, Any], task: str) -> dict[str, Any]:
    counts = align["heldout"][task]["after"]
    return counts | {
        "accept_rate": sum(counts["correct_by_position"]) / counts["proposed_drafts"],
        "accept_length": counts["completion_tokens"] / counts["verify_steps"],
    }
