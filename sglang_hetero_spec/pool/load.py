"""`load_pool`: every check of a pool that needs no model."""

from __future__ import annotations

from pathlib import Path

from sglang_hetero_spec.pool import paths
from sglang_hetero_spec.pool.checkpoint import check_checkpoint, check_weights_hash
from sglang_hetero_spec.pool.errors import PoolError, listed, shown
from sglang_hetero_spec.pool.model import DrafterSpec, Pool, RouterSpec, TargetSpec, TaskSpec
from sglang_hetero_spec.pool.parse import parse_manifest
from sglang_hetero_spec.pool.pickles import refuse_pickles
from sglang_hetero_spec.pool.router_files import check_router
from sglang_hetero_spec.pool.schema import MANIFEST_NAME, Drafter, Manifest
from sglang_hetero_spec.pool.strict_json import read_text
from sglang_hetero_spec.pool.tokenizer_check import TargetTokenizer, check_tokenizer
from sglang_hetero_spec.pool.tree_shape import tree_shape


def load_pool(path: str | Path, *, target: str | Path | None = None) -> Pool:
    """Read and check the pool in the folder `path`.

    `target`: the target model. If it is a local folder, tokenizers are compared with the one in it; otherwise
    with the manifest's `target.tokenizer_sha256`, if given. Raises PoolError, whose text is one sentence.
    """
    root = paths.pool_root(path, MANIFEST_NAME)
    manifest_path = root / MANIFEST_NAME
    return check_pool(root, parse_manifest(read_text(manifest_path), manifest_path), target)


def check_pool(root: Path, manifest: Manifest, target: str | Path | None) -> Pool:
    """The pool that `manifest` describes in `root`, absolute: all checks but the text's own."""
    where = root / MANIFEST_NAME
    _check_names(manifest, where)
    refuse_pickles(root)
    tokenizer = TargetTokenizer.find(manifest.target.tokenizer_sha256, target, where)
    drafters = tuple(
        _drafter(root, where, index, drafter, tokenizer) for index, drafter in enumerate(manifest.drafters)
    )
    tasks = tuple(TaskSpec(task.id, task.name or task.id, task.drafter) for task in manifest.tasks)
    return Pool(
        root=root,
        target=TargetSpec(manifest.target.name_or_path, manifest.target.tokenizer_sha256),
        drafters=drafters,
        tasks=tasks,
        fallback_drafter=manifest.fallback_drafter,
        router=_router(root, where, manifest),
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


def _drafter(root: Path, where: Path, index: int, drafter: Drafter, tokenizer: TargetTokenizer) -> DrafterSpec:
    start = f"{where}: `drafters[{index}]"
    shape = tree_shape(drafter, start)
    return DrafterSpec(
        name=drafter.name,
        kind=drafter.kind,
        path=_no_path(drafter, start) if drafter.kind == "none" else _path(root, drafter, start, tokenizer),
        vocab=drafter.vocab,
        **shape._asdict(),
        external=drafter.external,
        weights_sha256=drafter.weights_sha256,
        tokenizer_sha256=drafter.tokenizer_sha256,
    )


def _no_path(drafter: Drafter, start: str) -> None:
    for field in ("path", "weights_sha256", "tokenizer_sha256", "external"):
        value = getattr(drafter, field)
        if value not in (None, False):
            raise PoolError(f"{start}.{field}` is {shown(value)}, but kind `none` has no model; remove it.")


def _path(root: Path, drafter: Drafter, start: str, tokenizer: TargetTokenizer) -> Path:
    field = f"{start}.path`"
    if drafter.path is None:
        raise PoolError(f"{field} is missing; give the draft model's folder, relative to the pool.")
    folder = paths.resolve(root, drafter.path, field, drafter.external)
    if not drafter.external:
        paths.check_links(root, folder, field)
    config = check_checkpoint(folder, field)
    check_weights_hash(folder, drafter.weights_sha256, start)
    check_tokenizer(folder, config, drafter, start, tokenizer)
    return folder


def _router(root: Path, where: Path, manifest: Manifest) -> RouterSpec | None:
    if manifest.router is None:
        return None
    field = f"{where}: `router.path`"
    folder = paths.resolve(root, manifest.router.path, field)
    paths.check_links(root, folder, field)
    check_router(folder, [task.id for task in manifest.tasks])
    return RouterSpec(folder, manifest.router.min_confidence)
