"""The routed pool with drafters of all other kinds, and an adapter that comes and goes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.support import routed_pool
from tests.support.adapters import write_adapter
from tests.support.routed_pool import RoutedPool, write_routed_pool

# The fewest that there can be: they are soon overwritten.
CORPUS_TOKENS = 1024
TREE = {"num_steps": 4, "topk": 3, "num_draft_tokens": 8}
COPIES = {"copies": TREE, "copies-chain": {"num_steps": 5, "topk": 1}}  # n-grams
LEAVING = {"num_steps": 3, "exits": [1, 2], "thresholds": [0.3]}
SORTED = ("layers",)
ADAPTERS = ("small-a", "small-b")  # of `small`
DRAFTERS = (*routed_pool.DRAFTERS, *COPIES, *SORTED, *ADAPTERS)
GUEST = "guest"  # another adapter of `small`, loaded and unloaded while the server runs
PAIRS = (("near", "copies"), ("small-a", "copies"), ("layers", "copies-chain"), ("small-b", "near"), ("same", "layers"))
MERGED_TOKENS = 12


@dataclass(frozen=True)
class SoakedPool:
    routed: RoutedPool
    guest: Path

    @property
    def args(self) -> tuple[str, ...]:
        return self.routed.args


def write_soaked_pool(folder: Path) -> SoakedPool:
    routed = write_routed_pool(folder)
    small = folder / "small"
    adapters = {
        name: write_adapter(small, folder / name, rank=2 + seed, seed=seed)
        for seed, name in enumerate((*ADAPTERS, GUEST))
    }
    path = routed.pool / "pool.json"
    manifest = json.loads(path.read_text())
    manifest["drafters"] += [
        *({"name": name, "kind": "ngram", "capacity": CORPUS_TOKENS, **shape} for name, shape in COPIES.items()),
        *({"name": name, "kind": "sorted", "path": str(folder / "near"), "external": True, **LEAVING}
          for name in SORTED),
        *({"name": name, "kind": "lora", "path": str(adapters[name]), "external": True, "base": "small"}
          for name in ADAPTERS),
    ]  # fmt: skip
    manifest["merged_draft_tokens"] = MERGED_TOKENS
    path.write_text(json.dumps(manifest, indent=2))
    return SoakedPool(routed, adapters[GUEST])
