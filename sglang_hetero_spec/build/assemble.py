"""The finished pool: the chosen drafters, the router and the manifest, which is written last."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sglang_hetero_spec.build.assign.result import AssignedDrafter, Assignment
from sglang_hetero_spec.build.layout import Layout
from sglang_hetero_spec.build.partition.run import TaskFound
from sglang_hetero_spec.build.profile.records import NONE, ProfileRecord, Settings
from sglang_hetero_spec.build.profile.served import read_served
from sglang_hetero_spec.build.recipe import Recipe
from sglang_hetero_spec.pool import MANIFEST_NAME, Pool, write_pool_manifest

_NOT_SERVED = (".work", "align.json", "curve.jsonl", "stage.key", "stage.done", ".*.lock")


def assemble(
    recipe: Recipe,
    layout: Layout,
    assignment: Assignment,
    tasks: Sequence[TaskFound],
    thresholds: Mapping[str, Any] | None,
    measured: Sequence[ProfileRecord],
) -> Pool:
    """Copy what is chosen into the pool's folder and write its manifest. thresholds: what `fit-router` chose; None:
    there is no router.

    measured: the profile; a drafter is served in the mode that it was measured in.
    """
    pool = layout.pool
    (pool / MANIFEST_NAME).unlink(missing_ok=True)
    for name in ("drafters", "router"):
        shutil.rmtree(pool / name, ignore_errors=True)
    drafters = [_drafter(recipe, layout, item, measured) for item in assignment.drafters]
    if thresholds is not None:
        shutil.copytree(layout.router, pool / "router", ignore=shutil.ignore_patterns(*_NOT_SERVED, "threshold.json"))
    names = {task.id: task.name for task in tasks}
    return write_pool_manifest(
        pool,
        drafters=drafters,
        fallback_drafter=assignment.fallback_drafter,
        tasks=[{"id": t.task, "name": names.get(t.task, t.task), "drafter": t.drafter} for t in assignment.tasks],
        router=None if thresholds is None else {"path": "router", **thresholds},
        target=recipe.target,
    )


def _drafter(
    recipe: Recipe, layout: Layout, item: AssignedDrafter, measured: Sequence[ProfileRecord]
) -> dict[str, Any]:
    """Aligned drafters are copied into the pool, given ones stay where they are."""
    name, settings = item.drafter, item.candidate.settings
    if name == NONE:
        return {"name": NONE, "kind": NONE}
    entry: dict[str, Any] = {
        "name": name,
        "kind": "standalone",
        "vocab": mode_of(measured, name, settings),
        **settings._asdict(),
    }
    served = read_served(layout.profile).get(name)
    if served is not None:
        entry |= served
        folder = Path(served["path"])
    else:
        folder = Path(recipe.drafters[name]).resolve() if name in recipe.drafters else layout.drafter(name)
    if folder in {Path(path).resolve() for path in recipe.drafters.values()}:
        return entry | {"path": str(folder), "external": True}
    # One checkpoint may stand for several drafters.
    copy = layout.pool / "drafters" / folder.name
    if not copy.is_dir():
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(*_NOT_SERVED))
    return entry | {"path": f"drafters/{folder.name}"}


def mode_of(measured: Sequence[ProfileRecord], drafter: str, settings: Settings) -> str:
    """Of the measurement with these settings; a shorter chain than any that was measured comes from a chain."""
    mine = [record for record in measured if record.drafter == drafter]
    same = [record.vocab for record in mine if record.settings == settings]
    return (same or [record.vocab for record in mine if record.vocab != "slem"])[0]
