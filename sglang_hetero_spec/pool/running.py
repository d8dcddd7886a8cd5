"""A pool whose adapters come and go while it is served. Nothing of it is removed: the numbers of drafters stay."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from sglang_hetero_spec.pool.adapter import check_adapter, named_base
from sglang_hetero_spec.pool.errors import PoolError, listed, shown
from sglang_hetero_spec.pool.model import DrafterSpec, Pool, TaskSpec
from sglang_hetero_spec.pool.schema import NAME_PATTERN

# No name of a manifest has a blank, so no request can ask for it.
_GONE = " (unloaded)"
# What marks the writer of a KV slot (worker.written_slots) has 16 bits.
_MOST_DRAFTERS = 1 << 15
_FIELD = "`lora_path`"


def with_adapter(pool: Pool, name: str, path: str, found_base: str | None = None) -> Pool:
    """The pool with one drafter of kind `lora` more, the last one. PoolError, in one sentence, if it cannot be served.

    Its base is the drafter of the pool that the adapter fits; of several, the one whose folder the adapter names.
    found_base: its name, where another process has called this before; then no weights are compared again.
    """
    _check_name(pool, name)
    try:
        folder = _folder(path)
        base = _base_of(pool, folder, found_base)
    except PoolError:
        raise
    except (OSError, ValueError) as error:  # a name too long, a parent that cannot be searched
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise PoolError(
            f"{_FIELD} is {shown(path)}, which cannot be read ({reason}); give an adapter's folder."
        ) from None
    spec = replace(
        base, name=name, kind="lora", path=folder, external=True, weights_sha256=None, tokenizer_sha256=None,
        base=base.name,
    )  # fmt: skip
    return replace(pool, drafters=(*pool.drafters, spec))


def _check_name(pool: Pool, name: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        raise PoolError(
            f"`lora_name` is {shown(name)}; give 1 to 64 letters, digits, dots, dashes or underscores, the first a"
            " letter or digit."
        )
    if any(spec.name == name for spec in pool.drafters):
        raise PoolError(f"`lora_name` is {shown(name)}, which is a drafter already; unload it, or choose another name.")
    if len(pool.drafters) == _MOST_DRAFTERS:
        raise PoolError(f"The server has had {_MOST_DRAFTERS} drafters; start it again to load more.")


def _folder(path: str) -> Path:
    if "\0" in path or not Path(path).is_dir():
        raise PoolError(f"{_FIELD} is {shown(path)}, which is no folder on the server; give an adapter's folder.")
    return Path(path).resolve()


def _base_of(pool: Pool, folder: Path, found: str | None) -> DrafterSpec:
    bases = [spec for spec in pool.drafters if spec.kind == "standalone" and spec.vocab == "shared"]
    bases = [spec for spec in bases if found in (None, spec.name)]
    if not bases:
        raise PoolError("The pool has no drafter of kind `standalone` that an adapter could adapt; serve one with it.")
    fitting, first_error, named = [], None, None
    for base in bases:
        assert base.path is not None
        try:
            config = check_adapter(folder, base.path, _FIELD, compare_weights=found is None)
            named = named_base(config, folder)
            fitting.append(base)
        except PoolError as error:
            first_error = first_error or error
    if not fitting:
        raise first_error or PoolError(f"{_FIELD} cannot be read.")
    chosen = [base for base in fitting if base.path == named] or fitting
    if len(chosen) > 1:
        raise PoolError(
            f"{folder} fits the drafters {listed(base.name for base in chosen)}; set `base_model_name_or_path` in its"
            " adapter_config.json to the folder of its base."
        )
    return chosen[0]


def without_adapter(pool: Pool, name: str) -> Pool:
    """The pool whose drafter `name`, an adapter, no longer has that name; what it served its base does."""
    spec = next((spec for spec in pool.drafters if spec.name == name), None)
    adapters = [spec.name for spec in pool.drafters if spec.kind == "lora" and not is_gone(spec)]
    if spec is None or spec.base is None:
        raise PoolError(
            f"`lora_name` is {shown(name)}, which is no adapter of this pool; give one of {listed(adapters)}."
        )
    base = spec.base
    drafters = tuple(replace(spec, name=name + _GONE) if other is spec else other for other in pool.drafters)
    tasks = tuple(_handed_over(task, name, base) for task in pool.tasks)
    fallback = base if pool.fallback_drafter == name else pool.fallback_drafter
    return replace(pool, drafters=drafters, tasks=tasks, fallback_drafter=fallback)


def is_gone(spec: DrafterSpec) -> bool:
    return spec.name.endswith(_GONE)


def heirs(pool: Pool) -> dict[str, str]:
    """Of the names of unloaded adapters, their bases: requests that were tagged before still come. A name that was
    loaded again is not among them."""
    names = {spec.name for spec in pool.drafters}
    gone = {spec.name.removesuffix(_GONE): spec.base for spec in pool.drafters if is_gone(spec) and spec.base}
    return {name: base for name, base in gone.items() if name not in names}


def _handed_over(task: TaskSpec, name: str, base: str) -> TaskSpec:
    drafter = base if task.drafter == name else task.drafter
    second = base if task.second_drafter == name else task.second_drafter
    return replace(task, drafter=drafter, second_drafter=None if second == drafter else second)
