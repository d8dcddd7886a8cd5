"""Requests that two drafters serve: whose they may be, and how wide their merged tree is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sglang_hetero_spec.pool import kinds
from sglang_hetero_spec.pool.errors import PoolError, shown
from sglang_hetero_spec.pool.model import DrafterSpec
from sglang_hetero_spec.pool.schema import Manifest


def check_pairs(manifest: Manifest, where: Path) -> None:
    """PoolError for a second drafter that is none of the pool, drafts nothing, or is the first one."""
    # An adapter drafts with its base's model.
    model_of = {drafter.name: drafter.base or drafter.name for drafter in manifest.drafters}
    kind_of = {drafter.name: drafter.kind for drafter in manifest.drafters}
    for index, task in enumerate(manifest.tasks):
        second = task.second_drafter
        if second is None:
            continue
        field = f"{where}: `tasks[{index}].second_drafter` is {shown(second)}"
        if second not in kind_of:
            raise PoolError(f"{field}, which is no drafter of this pool; name one, or leave it out.")
        if second == task.drafter:
            raise PoolError(f"{field}, as is its `drafter`; name another, or leave it out.")
        if "none" in (kind_of[second], kind_of[task.drafter]):
            raise PoolError(f"{field} beside {shown(task.drafter)}, but `none` drafts nothing; leave it out.")
        if model_of[second] == model_of[task.drafter]:
            raise PoolError(
                f"{field} beside {shown(task.drafter)}, and both draft with the model of {shown(model_of[second])},"
                " which keeps the keys of one of them; name one of another model, or leave it out."
            )


def has_pairs(manifest: Manifest) -> bool:
    """Whether requests may have two drafters."""
    asked = manifest.merged_draft_tokens is not None or any(task.second_drafter is not None for task in manifest.tasks)
    return asked or (manifest.router is not None and manifest.router.second_below is not None)


def merged_draft_tokens(manifest: Manifest, drafters: Sequence[DrafterSpec], where: Path) -> int | None:
    """Nodes of a merged tree; where it is not given but there are pairs, as many as the widest drafter's.

    None: no request can have two drafters. Verification of branching trees costs more than that of chains, and on a GPU
    all requests are verified in one width, so it is only done where the manifest asks for it.
    """
    value, widest = manifest.merged_draft_tokens, max(drafter.num_draft_tokens for drafter in drafters)
    if value is None:
        return widest if has_pairs(manifest) else None
    if not widest <= value <= kinds.MAX_NUM_DRAFT_TOKENS:
        raise PoolError(
            f"{where}: `merged_draft_tokens` is {value}; give a whole number from {widest}, the nodes of the widest"
            f" drafter's tree, to {kinds.MAX_NUM_DRAFT_TOKENS}."
        )
    return value
