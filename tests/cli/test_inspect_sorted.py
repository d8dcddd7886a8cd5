"""`hetero-spec inspect` of sorted drafters."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fake_pool import FakePool

Run = Callable[..., Any]


def test_exits_and_thresholds_are_shown(hetero_spec: Run, pool: FakePool) -> None:
    pool.drafters[1] |= {"kind": "sorted", "exits": [1, 2, 4], "thresholds": [0.5, 0.75]}
    pool.drafters.append({**pool.drafters[1], "name": "fixed", "exits": [2], "thresholds": []})
    pool.write()
    ran = hetero_spec("inspect", pool.root, "--target", pool.target)
    assert ran.code == 0, ran
    assert (
        "Drafter general leaves its model for the target tiny behind layer 1 where it is sure to 0.5, behind layer 2"
        " where it is sure to 0.75, else behind layer 4." in ran.out
    )
    assert "Drafter fixed leaves its model for the target tiny behind layer 2." in ran.out
    assert "lies outside" not in ran.out
    ran = hetero_spec("inspect", pool.root, "--target", pool.target, "--json")
    shown = json.loads(ran.out)["drafters"][1]
    assert (shown["kind"], shown["exits"], shown["thresholds"]) == ("sorted", [1, 2, 4], [0.5, 0.75])


def test_two_pools_may_share_its_files(hetero_spec: Run, pool: FakePool) -> None:
    """Each says for which target its thresholds are, and which exits they never take."""
    pool.manifest["target"] = {"name_or_path": "../some/target"}
    given = {"kind": "sorted", "exits": [1, 2, 4], "thresholds": [0.5, 1.0], "external": True}
    pool.drafters[1] |= given | {"path": str(pool.root / pool.drafters[1]["path"])}
    pool.write()
    ran = hetero_spec("inspect", pool.root, "--target", pool.target)
    assert ran.code == 0, ran
    assert (
        "Drafter general leaves its model for the target ../some/target behind layer 1 where it is sure to 0.5, else"
        " behind layer 4." in ran.out
    )
    assert "Drafter general could be left behind layer 2 too, which never pays here." in ran.out
    assert f"Drafter general lies outside of the pool, in {pool.root}" in ran.out
