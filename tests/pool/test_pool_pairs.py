"""Tasks with two drafters, and the width of their merged trees."""

from __future__ import annotations

import pytest
from fake_pool import FakePool

from sglang_hetero_spec.pool import load_pool


def test_merged_trees_are_as_wide_as_the_widest_where_there_are_pairs(pool: FakePool) -> None:
    pool.write()
    found = load_pool(pool.root)
    widest = max(drafter.num_draft_tokens for drafter in found.drafters)
    assert found.merged_draft_tokens is None and found.widest == widest
    assert pool.manifest["router"] is not None
    pool.manifest["router"]["second_below"] = 0.7
    pool.write()
    assert load_pool(pool.root).merged_draft_tokens == widest
    pool.manifest["merged_draft_tokens"] = 64
    pool.write()
    assert load_pool(pool.root).merged_draft_tokens == 64


@pytest.mark.parametrize("value", [0, 1, 129])
def test_a_width_that_cannot_be(pool: FakePool, value: int) -> None:
    pool.manifest["merged_draft_tokens"] = value
    message = pool.refusal()
    assert message.startswith(f"{pool.manifest_path}: `merged_draft_tokens` is {value}; give a whole number from ")
    assert message.endswith("to 128.")


@pytest.mark.parametrize(
    ("second", "complaint"),
    [("nobody-knows", "which is no drafter of this pool"), ("SAME", "as is its `drafter`"), ("NONE", "drafts nothing")],
)
def test_a_second_drafter_that_cannot_be(pool: FakePool, second: str, complaint: str) -> None:
    kinds = {drafter["kind"]: drafter["name"] for drafter in pool.drafters}
    task = pool.manifest["tasks"][0]
    task["drafter"] = kinds["standalone"]
    task["second_drafter"] = {"SAME": task["drafter"], "NONE": kinds["none"]}.get(second, second)
    message = pool.refusal()
    assert message.startswith(f"{pool.manifest_path}: `tasks[0].second_drafter` is ") and complaint in message


@pytest.mark.parametrize(("key", "kind"), [("base", "standalone"), ("exits", "standalone"), ("capacity", "none")])
def test_a_key_of_another_kind(pool: FakePool, key: str, kind: str) -> None:
    index = next(index for index, drafter in enumerate(pool.drafters) if drafter["kind"] == kind)
    pool.drafters[index][key] = {"base": "other", "exits": [1], "capacity": 5}[key]
    message = pool.refusal()
    assert message.startswith(f"{pool.manifest_path}: `drafters[{index}].{key}` is ")
    assert f"but kind `{kind}` has no such key" in message
