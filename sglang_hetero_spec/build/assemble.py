"""The finished pool: the chosen drafters, the router and the manifest, which is written last."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sglang_hetero_spec.build.assign.result import AssignedDrafter, Assignment
from sglang_hetero_spec.build.layout import GENERAL, Layout
from sglang_hetero_spec.build.partition.run import TaskFound
from sglang_hetero_spec.build.profile.records import NONE, ProfileRecord, Settings
from sglang_hetero_spec.build.profile.served import read_served
from sglang_hetero_spec.build.recipe import Recipe
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.pool import MANIFEST_NAME, Pool, write_pool_manifest
from sglang_hetero_spec.pool.adapter import CONFIG_FILE, named_base, read_adapter_config
from sglang_hetero_spec.pool.entries.ngram import CORPUS_NAME

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
    drafters += _missing_bases(recipe, layout, drafters)
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
        folder = _folder(recipe, layout, name)
    if (folder / CONFIG_FILE).is_file():
        entry |= {"kind": "lora", "base": _base_of(recipe, layout, folder)}
    if (folder / CORPUS_NAME).is_file():
        entry["kind"] = "ngram"
    return entry | _placed(recipe, layout, folder)


def _folder(recipe: Recipe, layout: Layout, name: str) -> Path:
    if name in recipe.drafters:
        return Path(recipe.drafters[name]).resolve()
    return layout.corpus(name) if layout.corpus(name).is_dir() else layout.drafter(name)


def _placed(recipe: Recipe, layout: Layout, folder: Path) -> dict[str, Any]:
    if folder in {Path(path).resolve() for path in recipe.drafters.values()}:
        return {"path": str(folder), "external": True}
    # One checkpoint may stand for several drafters.
    copy = layout.pool / "drafters" / folder.name
    if not copy.is_dir():
        # An adapter's tokenizer is that of its base.
        left = (*_NOT_SERVED, "*token*", "chat_template*") if (folder / CONFIG_FILE).is_file() else _NOT_SERVED
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(*left))
    return {"path": f"drafters/{folder.name}"}


def _base_of(recipe: Recipe, layout: Layout, folder: Path) -> str:
    """The name of the drafter that the adapter in `folder` says it belongs to."""
    config = read_adapter_config(folder, "`drafters`")
    sources = {Path(path).resolve(): name for name, path in recipe.drafters.items()}
    sources[layout.drafter(GENERAL).resolve()] = GENERAL
    named = named_base(config, folder)
    base = None if named is None else sources.get(named)
    if base is None:
        raise HeteroError(
            f"The base of the adapter {folder} is {config.base}, no drafter here; name it under `drafters` too."
        )
    return base


def _missing_bases(recipe: Recipe, layout: Layout, drafters: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bases that were chosen for nothing but their adapters; their shape is that of one of these."""
    known, added = {entry["name"] for entry in drafters}, []
    for adapter in drafters:
        base = adapter.get("base")
        if base is not None and base not in known:
            known.add(base)
            folder = Path(recipe.drafters[base]).resolve() if base in recipe.drafters else layout.drafter(base)
            shape = {field: adapter[field] for field in Settings._fields}
            entry = {"name": base, "kind": "standalone", "vocab": "shared", **shape}
            added.append(entry | _placed(recipe, layout, folder))
    return added


def mode_of(measured: Sequence[ProfileRecord], drafter: str, settings: Settings) -> str:
    """Of the measurement with these settings; a shorter chain than any that was measured comes from a chain."""
    mine = [record for record in measured if record.drafter == drafter]
    same = [record.vocab for record in mine if record.settings == settings]
    return (same or [record.vocab for record in mine if record.vocab != "slem"])[0]
