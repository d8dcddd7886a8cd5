"""Routing to adapters that come and go, and overrides that name two drafters of one model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sglang_hetero_spec.pool import DrafterSpec, Pool, TargetSpec, TaskSpec
from sglang_hetero_spec.pool.running import without_adapter
from sglang_hetero_spec.router.override import handed_over
from sglang_hetero_spec.router.route import OverrideError, RequestRouter, Route


def drafter(name: str, base: str | None = None) -> DrafterSpec:
    kind = "standalone" if base is None else "lora"
    return DrafterSpec(name, kind, Path("/nowhere"), "shared", 2, 1, 3, base=base)


@pytest.fixture
def pool() -> Pool:
    drafters = (drafter("base"), drafter("sql", "base"), drafter("math", "base"), drafter("other"))
    tasks = (TaskSpec("t", "t", "sql", "other"), TaskSpec("u", "u", "math"))
    return Pool(Path("/nowhere"), TargetSpec(), drafters, tasks, "sql", None, merged_draft_tokens=5)


def asked(router: RequestRouter, **override: object) -> Route:
    return router.route(None, None, override)


def test_what_is_unloaded_goes_to_its_base(pool: Pool) -> None:
    router = RequestRouter(pool)
    assert asked(router, task="t").drafters == ("sql", "other")
    tag = asked(router, drafter="sql").to_tag()
    router.renew(without_adapter(pool, "sql"))
    assert asked(router, task="t").drafters == ("base", "other")
    assert router.route("x", None, None).drafter == "base"
    with pytest.raises(OverrideError, match="`sql`, and this pool has no such drafter; give one of `base`, `math`"):
        asked(router, drafter="sql")
    assert router.route(None, None, tag).drafter == "base", "a request that was tagged before"


def test_a_tag_of_two_drafters_keeps_the_one_that_stays(pool: Pool) -> None:
    tag = Route(None, "sql", None, "request", "other").to_tag()
    assert Route.from_tag(handed_over(tag, {"sql": "base"})).drafters == ("base", "other")
    assert Route.from_tag(handed_over(tag, {"other": "sql"})).drafters == ("sql",)
    assert handed_over(tag, {}) is tag
    assert handed_over({"drafter": "sql"}, {"sql": "base"}) == {"drafter": "sql"}
    assert handed_over({**tag, "drafters": 3}, {"sql": "base"})["drafter"] == "base"


@pytest.mark.parametrize("pair", [["sql", "math"], ["base", "sql"]])
def test_two_drafters_of_one_model_are_refused(pool: Pool, pair: list[str]) -> None:
    with pytest.raises(OverrideError, match="which draft with one model"):
        asked(RequestRouter(pool), drafters=pair)


def test_an_unsure_router_adds_no_drafter_of_the_same_model(pool: Pool) -> None:
    router = RequestRouter(replace(pool, fallback_drafter="base"))
    assert router._beside("base", "sql") is None and router._beside("sql", "math") is None
    assert router._beside("sql", "other") == "other"
