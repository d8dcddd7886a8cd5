"""Requests that two drafters serve: because they say so, or because the router is not sure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sglang_hetero_spec.pool import Pool
from sglang_hetero_spec.router.route import OverrideError, RequestRouter, Route
from tests.router.conftest import make_pool
from tests.router.toy import toy_prompt

PROMPT = toy_prompt("code", 7)


def test_a_request_may_name_two(pool: Pool) -> None:
    route = RequestRouter(pool).route(PROMPT, None, {"drafters": ["counter", "coder"]})
    assert route == Route(None, "counter", None, "request", "coder") and route.drafters == ("counter", "coder")
    assert route.to_tag()["drafters"] == ["counter", "coder"]
    assert RequestRouter(pool).route(PROMPT, None, route.to_tag()) == route


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("coder", "is a string, not a list of two names"),
        (["coder"], "is a list, not a list of two names"),
        (["coder", "counter", "general"], "is a list, not a list of two names"),
        (["coder", 1], "is a list, not a list of two names"),
        (["coder", "coder"], "has `coder` twice"),
        (["coder", "painter"], "is `painter`, and this pool has no such drafter"),
        (["coder", "general"], "has `general`, which drafts nothing"),
    ],
)
def test_wrong_pairs_are_refused(saved: Path, value: Any, complaint: str) -> None:
    router = RequestRouter(make_pool(saved, idle=("general",)))
    with pytest.raises(OverrideError, match=complaint) as error:
        router.route(PROMPT, None, {"drafters": value})
    assert str(error.value).endswith(".") and "`coder`" in str(error.value)


def test_a_pool_that_merges_nothing_serves_no_pairs(pool: Pool) -> None:
    router = RequestRouter(replace(pool, merged_draft_tokens=None))
    with pytest.raises(
        OverrideError, match="has no `merged_draft_tokens`, serves no pairs; give one drafter of `coder`"
    ):
        router.route(PROMPT, None, {"drafters": ["counter", "coder"]})


def test_a_tag_made_by_hand_is_checked_too(saved: Path) -> None:
    router = RequestRouter(make_pool(saved, idle=("general",)))
    for pair in (["coder", "coder"], ["coder", "general"]):
        tag = {**Route(None, "coder", None, "request").to_tag(), "drafters": pair}
        with pytest.raises(OverrideError):
            router.route(PROMPT, None, tag)


@pytest.mark.parametrize("pair", [["counter"], ["counter", "coder"], "coder", ["coder", 3], None])
def test_a_tag_whose_pair_is_not_its_own_is_refused(pool: Pool, pair: Any) -> None:
    tag = {**Route(None, "coder", None, "request").to_tag(), "drafters": pair}
    with pytest.raises(OverrideError, match="`drafters` is not right"):
        RequestRouter(pool).route(PROMPT, None, tag)


def test_a_task_may_have_two(pool: Pool) -> None:
    code = replace(next(task for task in pool.tasks if task.id == "code"), second_drafter="counter")
    router = RequestRouter(replace(pool, tasks=tuple(code if task.id == "code" else task for task in pool.tasks)))
    assert router.route(PROMPT, None, None).drafters == ("coder", "counter")
    assert router.route(PROMPT, None, {"task": "code"}).drafters == ("coder", "counter")
    assert router.route(PROMPT, None, {"drafter": "coder"}).drafters == ("coder",)


def test_an_unsure_router_asks_its_second_choice_too(saved: Path) -> None:
    sure = RequestRouter(make_pool(saved, min_confidence=0.0, second_below=0.0)).route(PROMPT, None, None)
    assert sure.drafters == ("coder",)
    router = RequestRouter(make_pool(saved, min_confidence=0.0, second_below=1.0))
    route, prediction = router.route(PROMPT, None, None), router.predict(PROMPT, None)
    assert prediction is not None and router.router is not None
    second = sorted(prediction.scores)[-2]
    task = router.router.classes[prediction.scores.index(second)]
    assert route == (sure.task, "coder", sure.confidence, "router", {"sums": "counter", "letters": "general"}[task])


def test_below_the_fallback_the_first_choice_joins_it(saved: Path) -> None:
    route = RequestRouter(make_pool(saved, min_confidence=0.9999, second_below=1.0)).route(PROMPT, None, None)
    assert route.source == "fallback" and route.drafters == ("general", "coder")


def test_nobody_drafts_beside_one_that_drafts_nothing(saved: Path) -> None:
    idle = make_pool(saved, min_confidence=0.9999, second_below=1.0, idle=("general",))
    assert RequestRouter(idle).route(PROMPT, None, None).drafters == ("general",)
