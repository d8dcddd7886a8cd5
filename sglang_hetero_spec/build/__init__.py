"""From a log of prompts to a pool. Offline only: nothing here runs in a server.

    from sglang_hetero_spec import Pool, build

    recipe = build.load_recipe("build.yaml", {"seed": 1})
    pool: Pool = build.build(recipe, "pool/", say=print).pool

The steps by themselves: `build.Partitioner` (scikit-learn's habits: `fit`, `predict`, `random_state`, `n_tasks`),
`build.partition_log`, `build.regenerate_answers`, `build.align_drafter`, `build.profile_drafters`,
`build.assign_drafters`, `build.fit_priced_router`, `build.write_report`.
"""

from __future__ import annotations

import importlib
from typing import Any

# Name here -> where it is and what it is called there; looked up on first use, for torch takes seconds.
_PUBLIC = {
    "build": ("pipeline", "build"),
    "load_recipe": ("recipe", "load_recipe"),
    "Recipe": ("recipe", "Recipe"),
    "Partitioner": ("partition", "Partitioner"),
    "partition_log": ("partition", "partition_log"),
    "regenerate_answers": ("regenerate", "regenerate"),
    "align_drafter": ("align", "align"),
    "profile_drafters": ("profile.measure", "profile"),
    "assign_drafters": ("assign.assignment", "assign"),
    "fit_priced_router": ("assign.fit_router", "fit_priced_router"),
    "write_report": ("report", "write_report"),
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
