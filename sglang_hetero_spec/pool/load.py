"""`load_pool`: every check of a pool that needs no model."""

from __future__ import annotations

from pathlib import Path

from sglang_hetero_spec.pool import paths
from sglang_hetero_spec.pool.entries import Checks, check_entry
from sglang_hetero_spec.pool.errors import PoolError, listed, shown
from sglang_hetero_spec.pool.foreign import Modes
from sglang_hetero_spec.pool.model import DrafterSpec, Pool, RouterSpec, TargetSpec, TaskSpec
from sglang_hetero_spec.pool.pairs import check_pairs, merged_draft_tokens
from sglang_hetero_spec.pool.parse import parse_manifest
from sglang_hetero_spec.pool.pickles import refuse_pickles
from sglang_hetero_spec.pool.router_files import check_router
from sglang_hetero_spec.pool.schema import MANIFEST_NAME, Drafter, Manifest
from sglang_hetero_spec.pool.strict_json import read_text
from sglang_hetero_spec.pool.tokenizer_check import TargetTokenizer


def load_pool(path: str | Path, *, target: str | Path | None = None) -> Pool:
    """Read and check the pool in the folder `path`.

    `target`: the target model. If it is a local folder (`local_folder` finds that of a name), tokenizers are compared
    with the one in it, and `vocab: auto` becomes a mode; otherwise they are compared with the manifest's
    `target.tokenizer_sha256`, if given, and `auto` stays. Raises PoolError, whose text is one sentence.
    """
    root = paths.pool_root(path, MANIFEST_NAME)
    manifest_path = root / MANIFEST_NAME
    return check_pool(root, parse_manifest(read_text(manifest_path), manifest_path), target)


def check_pool(root: Path, manifest: Manifest, target: str | Path | None) -> Pool:
    """The pool that `manifest` describes in `root`, absolute: all checks but the text's own."""
    where = root / MANIFEST_NAME
    _check_names(manifest, where)
    check_pairs(manifest, where)
    refuse_pickles(root)
    tokenizer = TargetTokenizer.find(manifest.target.tokenizer_sha256, target, where)
    checks = Checks(root, where, manifest, tokenizer, Modes(root, tokenizer))
    drafters = tuple(_drafter(checks, index, drafter) for index, drafter in enumerate(manifest.drafters))
    tasks = tuple(TaskSpec(task.id, task.name or task.id, task.drafter, task.second_drafter) for task in manifest.tasks)
    return Pool(
        root=root,
        target=TargetSpec(manifest.target.name_or_path, manifest.target.tokenizer_sha256),
        drafters=drafters,
        tasks=tasks,
        fallback_drafter=manifest.fallback_drafter,
        router=_router(root, where, manifest),
        merged_draft_tokens=merged_draft_tokens(manifest, drafters, where),
    )


def _check_names(manifest: Manifest, where: Path) -> None:
    drafters = [drafter.name for drafter in manifest.drafters]
    _check_unique(drafters, "drafters", "name", where)
    _check_unique([task.id for task in manifest.tasks], "tasks", "id", where)
    _check_unique([task.name or task.id for task in manifest.tasks], "tasks", "name", where)
    references = [("fallback_drafter", manifest.fallback_drafter)]
    references += [(f"tasks[{index}].drafter", task.drafter) for index, task in enumerate(manifest.tasks)]
    for field, name in references:
        if name not in drafters:
            raise PoolError(f"{where}: `{field}` is {shown(name)}, which is no drafter; use one of {listed(drafters)}.")


def _check_unique(names: list[str], group: str, key: str, where: Path) -> None:
    for index, name in enumerate(names):
        first = names.index(name)
        if first < index:
            raise PoolError(
                f"{where}: `{group}[{index}].{key}` is {shown(name)}, as is `{group}[{first}].{key}`; rename one."
            )


def _drafter(checks: Checks, index: int, drafter: Drafter) -> DrafterSpec:
    entry = check_entry(checks, index, drafter)
    return DrafterSpec(
        name=drafter.name,
        kind=drafter.kind,
        path=entry.path,
        vocab=entry.mode.vocab,
        **entry.shape._asdict(),
        external=drafter.external,
        weights_sha256=drafter.weights_sha256,
        tokenizer_sha256=drafter.tokenizer_sha256,
        overlap=entry.mode.overlap,
        auto_reason=entry.mode.reason,
        base=entry.base,
        capacity=entry.capacity,
        exits=entry.exits,
        thresholds=entry.thresholds,
    )


def _router(root: Path, where: Path, manifest: Manifest) -> RouterSpec | None:
    if manifest.router is None:
        return None
    field = f"{where}: `router.path`"
    folder = paths.resolve(root, manifest.router.path, field)
    paths.check_links(root, folder, field)
    check_router(folder, [task.id for task in manifest.tasks])
    return RouterSpec(folder, manifest.router.min_confidence, manifest.router.second_below)
