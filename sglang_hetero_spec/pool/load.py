"""`load_pool`: every check of a pool that needs no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sglang_hetero_spec.pool import paths
from sglang_hetero_spec.pool.checkpoint import check_checkpoint, check_weights_hash
from sglang_hetero_spec.pool.errors import PoolError, listed, shown
from sglang_hetero_spec.pool.foreign import SHARED, Mode, Modes
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
    refuse_pickles(root)
    tokenizer = TargetTokenizer.find(manifest.target.tokenizer_sha256, target, where)
    checks = _Checks(root, where, tokenizer, Modes(root, tokenizer))
    drafters = tuple(_drafter(checks, index, drafter) for index, drafter in enumerate(manifest.drafters))
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


@dataclass(frozen=True)
class _Checks:
    """What each drafter is checked against."""

    root: Path
    where: Path
    tokenizer: TargetTokenizer
    modes: Modes


def _drafter(checks: _Checks, index: int, drafter: Drafter) -> DrafterSpec:
    start = f"{checks.where}: `drafters[{index}]"
    shape = tree_shape(drafter, start)
    path, mode = _no_path(drafter, start) if drafter.kind == "none" else _path(checks, drafter, start)
    if mode.vocab == "tli" and mode.overlap is not None and mode.overlap.num_shared < shape.topk:
        raise PoolError(
            f"{start}.topk` is {shape.topk}, but the drafter shares only {mode.overlap.num_shared} tokens with the"
            " target; give no more than that."
        )
    return DrafterSpec(
        name=drafter.name,
        kind=drafter.kind,
        path=path,
        vocab=mode.vocab,
        **shape._asdict(),
        external=drafter.external,
        weights_sha256=drafter.weights_sha256,
        tokenizer_sha256=drafter.tokenizer_sha256,
        overlap=mode.overlap,
        auto_reason=mode.reason,
    )


def _no_path(drafter: Drafter, start: str) -> tuple[None, Mode]:
    for field in ("path", "weights_sha256", "tokenizer_sha256", "external"):
        value = getattr(drafter, field)
        if value not in (None, False):
            raise PoolError(f"{start}.{field}` is {shown(value)}, but kind `none` has no model; remove it.")
    return None, SHARED


def _path(checks: _Checks, drafter: Drafter, start: str) -> tuple[Path, Mode]:
    field = f"{start}.path`"
    if drafter.path is None:
        raise PoolError(f"{field} is missing; give the draft model's folder, relative to the pool.")
    folder = paths.resolve(checks.root, drafter.path, field, drafter.external)
    if not drafter.external:
        paths.check_links(checks.root, folder, field)
    config = check_checkpoint(folder, field)
    check_weights_hash(folder, drafter.weights_sha256, start)
    check_tokenizer(folder, config, drafter, start, checks.tokenizer)
    return folder, checks.modes.of(drafter.vocab, folder, config, f"{start}.vocab`")


def _router(root: Path, where: Path, manifest: Manifest) -> RouterSpec | None:
    if manifest.router is None:
        return None
    field = f"{where}: `router.path`"
    folder = paths.resolve(root, manifest.router.path, field)
    paths.check_links(root, folder, field)
    check_router(folder, [task.id for task in manifest.tasks])
    return RouterSpec(folder, manifest.router.min_confidence)
