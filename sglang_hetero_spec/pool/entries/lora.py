"""`lora`: an adapter of another drafter of the pool."""

from __future__ import annotations

from sglang_hetero_spec.pool import paths
from sglang_hetero_spec.pool.adapter import check_adapter
from sglang_hetero_spec.pool.checkpoint import check_weights_hash
from sglang_hetero_spec.pool.entries.checks import FILE_FIELDS, TREE_FIELDS, Checks, Entry
from sglang_hetero_spec.pool.errors import PoolError, shown
from sglang_hetero_spec.pool.schema import Drafter
from sglang_hetero_spec.pool.tree_shape import tree_shape

FIELDS = (*FILE_FIELDS, "base", *TREE_FIELDS)


def check(checks: Checks, drafter: Drafter, start: str) -> Entry:
    base, base_path = _base(checks, drafter, f"{start}.base`")
    own = {field: getattr(drafter, field) for field in TREE_FIELDS if getattr(drafter, field) is not None}
    shape = tree_shape(drafter if own else drafter.model_copy(update={f: getattr(base, f) for f in TREE_FIELDS}), start)
    folder = checks.folder(drafter, start, "the adapter's folder")
    base_folder = paths.resolve(checks.root, base_path, f"{start}.base`", base.external)
    check_adapter(folder, base_folder, f"{start}.path`")
    check_weights_hash(folder, drafter.weights_sha256, start)
    return Entry(shape, folder, base=base.name)


def _base(checks: Checks, drafter: Drafter, field: str) -> tuple[Drafter, str]:
    if drafter.base is None:
        raise PoolError(f"{field} is missing; name the drafter of this pool that the adapter belongs to.")
    base = checks.named(drafter.base)
    if base is None or base.kind != "standalone" or base.vocab != "shared":
        raise PoolError(
            f"{field} is {shown(drafter.base)}, which is no drafter of kind `standalone` with the target's vocabulary;"
            " add the base to the pool, and name it."
        )
    if base.path is None:
        raise PoolError(f"{field} is {shown(drafter.base)}, which has no `path`; give that drafter its checkpoint.")
    return base, base.path
