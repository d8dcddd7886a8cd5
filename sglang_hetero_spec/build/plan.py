"""`build --plan`: what a build would do, and about how long and how much disk it takes, before anything is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sglang_hetero_spec.build.layout import Layout
from sglang_hetero_spec.build.partition import distinct_prompts
from sglang_hetero_spec.build.prompts import read_log
from sglang_hetero_spec.build.recipe import Recipe
from sglang_hetero_spec.build.regenerate.target import check_target
from sglang_hetero_spec.build.stages import DONE, KEY
from sglang_hetero_spec.pool import checkpoint_size

# Rough speed of one CPU core; on a GPU all is far quicker.
_FLOPS_PER_CORE = 2e10
_SERVER_SECONDS = 60.0
_CHARS_PER_TOKEN = 3.5
_TASKS_UNKNOWN = 6
_PARAMS_UNKNOWN = 1_000_000_000


def plan_build(recipe: Recipe, out: Path) -> list[dict[str, Any]]:
    """A row for each stage: stage, state (`done`, `begun`, `to do`), work, about (time), disk. Nothing is written."""
    check_target(recipe.target, with_weights=True)
    layout, target = Layout(out), Path(recipe.target)
    prompts = distinct_prompts(read_log(recipe.prompts).prompts).prompts
    params = checkpoint_size(target).num_params if target.is_dir() else _PARAMS_UNKNOWN
    flops = _FLOPS_PER_CORE * (os.cpu_count() or 1)
    tasks = recipe.partition.n_tasks or _TASKS_UNKNOWN
    asked = sum(len(prompt.text) for prompt in prompts) / _CHARS_PER_TOKEN
    answered = len(prompts) * recipe.regenerate.max_new_tokens / 2
    per_task = recipe.align.tokens or recipe.align.epochs * (asked + answered) / tasks
    taught = 2 * tasks * per_task
    passes = recipe.profile.passes * len(recipe.profile.concurrency) * tasks * (tasks + 2 + len(recipe.drafters))
    served = passes * recipe.profile.num_prompts * recipe.profile.max_new_tokens / 2
    rows = [
        ("partition", f"{len(prompts)} different prompts", len(prompts) * 0.02, len(prompts) * 400),
        ("regenerate", f"{len(prompts)} answers, about {answered:,.0f} tokens",
         _SERVER_SECONDS + 2 * params * (asked + answered) / flops, (asked + answered) * 8),
        ("drafters", f"one for each of about {tasks} tasks and a general one, {taught:,.0f} tokens",
         taught * 3 * params / flops, (tasks + 1) * params),
        ("profile", f"{passes} passes of {recipe.profile.num_prompts} prompts",
         _SERVER_SECONDS + 2 * params * served / flops, passes * 400),
        ("assign", "exact", 2.0, 10_000),
        ("router", "cross-validated", 30.0, 2_000_000),
    ]  # fmt: skip
    return [
        {"stage": name, "state": _state(layout.stage(name)), "work": work, "about": _time(seconds), "disk": _size(size)}
        for name, work, seconds, size in rows
    ]


def _state(folder: Path) -> str:
    if (folder / DONE).is_file():
        return "done"
    return "begun" if (folder / KEY).is_file() else "to do"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _size(num_bytes: float) -> str:
    return f"{max(1, num_bytes / 1e6):,.0f} MB"
