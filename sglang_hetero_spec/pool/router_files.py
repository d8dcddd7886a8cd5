"""Checks of the router's folder that need no router code: files, and classes equal to the task ids."""

from __future__ import annotations

from pathlib import Path

from sglang_hetero_spec.pool.errors import PoolError, listed, shown
from sglang_hetero_spec.pool.safetensors_file import read_header
from sglang_hetero_spec.pool.strict_json import read_object

ROUTER_FORMAT = "sglang_hetero_spec.router"


def check_router(folder: Path, task_ids: list[str]) -> None:
    """PoolError if the router in `folder` is incomplete or knows other tasks than the manifest."""
    path = folder / "router.json"
    router = read_object(path)
    if router.get("format") != ROUTER_FORMAT:
        raise PoolError(f"{path}: `format` is {shown(router.get('format'))}, not {shown(ROUTER_FORMAT)}; fit it again.")
    version = router.get("schema_version")
    if type(version) is not int or version < 1:
        raise PoolError(
            f"{path}: `schema_version` is {shown(version)}, not a whole number above 0; fit the router again."
        )
    classes = router.get("classes")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise PoolError(f"{path}: `classes` is {shown(classes)}, not a list of task ids; fit the router again.")
    _compare(path, classes, task_ids)
    read_header(folder / "router.safetensors")


def _compare(path: Path, classes: list[str], task_ids: list[str]) -> None:
    if len(set(classes)) != len(classes):
        raise PoolError(f"{path}: `classes` names a task twice; fit the router again.")
    unknown, unserved = sorted(set(classes) - set(task_ids)), sorted(set(task_ids) - set(classes))
    if unknown or unserved:
        raise PoolError(
            f"{path}: `classes` are not the tasks of pool.json (only the router has {listed(unknown)};"
            f" only pool.json has {listed(unserved)}); fit the router again, or correct `tasks`."
        )
