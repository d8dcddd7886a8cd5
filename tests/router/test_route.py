from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_hetero_spec.pool import Pool
from sglang_hetero_spec.router.errors import RouterError
from sglang_hetero_spec.router.override import read_override
from sglang_hetero_spec.router.route import OverrideError, RequestRouter, Route
from tests.router.conftest import make_pool
from tests.router.toy import toy_prompt

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


def decode(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def ids_of(text: str) -> list[int]:
    return [ord(c) for c in text]


@pytest.fixture(scope="module")
def router(pool: Pool) -> RequestRouter:
    return RequestRouter(pool, decode)


def test_text_and_ids_go_to_the_drafter_of_their_task(router: RequestRouter) -> None:
    for task, drafter in (("code", "coder"), ("sums", "counter"), ("letters", "general")):
        prompt = toy_prompt(task, 500)
        by_text = router.route(prompt, None, None)
        assert (by_text.task, by_text.drafter, by_text.source) == (task, drafter, "router")
        assert by_text.confidence is not None and 0.9 < by_text.confidence <= 1
        assert router.route(None, ids_of(prompt), None) == by_text
        assert router.route(None, array("q", ids_of(prompt)), None) == by_text


def test_the_confidence_is_told_to_four_digits(router: RequestRouter) -> None:
    prompts = [toy_prompt(task, 500)[:cut] for task in ("code", "sums", "letters") for cut in range(1, 40)]
    for prompt in prompts:
        prediction, route = router.predict(prompt, None), router.route(prompt, None, None)
        assert prediction is not None and route.confidence == round(prediction.confidence, 4)
        assert prediction.confidence == prediction.probabilities.max()
        assert prediction.probabilities.sum() == pytest.approx(1)


def test_text_is_read_where_both_are_given(router: RequestRouter) -> None:
    route = router.route(toy_prompt("code", 5), ids_of(toy_prompt("sums", 5)), None)
    assert route.task == "code"


def test_an_empty_text_beside_ids_is_an_empty_prompt(router: RequestRouter) -> None:
    """The text that came is the prompt; ids beside it are what the tokenizer put there."""
    assert router.route("", [1], None).source == "fallback"


def test_below_min_confidence_the_fallback_serves_and_the_task_is_still_told(saved: Path) -> None:
    prompt = "Write to Mrs. Miller about apples in Python."
    unsure = RequestRouter(make_pool(saved, min_confidence=0.0)).route(prompt, None, None)
    assert unsure.source == "router" and unsure.confidence is not None and unsure.confidence < 0.999
    route = RequestRouter(make_pool(saved, min_confidence=0.999)).route(prompt, None, None)
    assert route == Route(unsure.task, "general", unsure.confidence, "fallback")


@pytest.mark.parametrize("text", [None, "", " ", "\n\t\r\n", "\x00\x01\x1b\x7f", " " * 100_000])
def test_nothing_to_read(router: RequestRouter, text: str | None) -> None:
    assert router.route(text, None, None) == Route(None, "general", None, "fallback")


@pytest.mark.parametrize("text", ["\ud800", "a\udfff" * 400, "\U0010ffff" * 1000, "\x00x", "e\u0301" * 900, "%s {0}"])
def test_strange_text_is_routed_or_left_to_the_fallback(router: RequestRouter, text: str) -> None:
    assert router.route(text, None, None).source in ("router", "fallback")


def test_ids_that_cannot_be_read_go_to_the_fallback(pool: Pool) -> None:
    fallback = Route(None, "general", None, "fallback")
    assert RequestRouter(pool).route(None, [1, 2], None) == fallback, "no tokenizer"
    assert RequestRouter(pool, decode).route(None, [], None) == fallback
    assert RequestRouter(pool, decode).route(None, [-1], None) == fallback
    assert RequestRouter(pool, decode).route(None, [1 << 70], None) == fallback
    assert RequestRouter(pool, decode).route(None, [0x110000], None) == fallback
    assert RequestRouter(pool, decode).route(None, ["x"], None) == fallback  # type: ignore[list-item]


def test_of_many_ids_only_the_ends_are_decoded(pool: Pool) -> None:
    sizes: list[int] = []

    def counting(ids: list[int]) -> str:
        sizes.append(len(ids))
        return decode(ids)

    RequestRouter(pool, counting).route(None, ids_of("word " * 20_000), None)
    assert len(sizes) == 2 and sum(sizes) <= 200


def test_the_middle_of_a_long_prompt_counts_for_nothing(router: RequestRouter) -> None:
    start, end = toy_prompt("code", 1) * 10, toy_prompt("sums", 1) * 10
    first, second = (router.predict(start + middle + end, None) for middle in ("Dear Mrs. Miller! " * 5000, "0" * 999))
    assert first is not None and second is not None
    assert first.probabilities.tolist() == second.probabilities.tolist()


def test_without_a_router_the_fallback_serves_and_overrides_still_hold() -> None:
    router = RequestRouter(make_pool(None), decode)
    assert router.route(toy_prompt("code", 1), None, None) == Route(None, "general", None, "fallback")
    assert router.route("x", None, {"task": "code"}) == Route("code", "coder", None, "request")


def test_a_router_that_knows_a_task_more_than_the_pool_is_refused(saved: Path, pool: Pool) -> None:
    less = Pool(pool.root, pool.target, pool.drafters, pool.tasks[:2], pool.fallback_drafter, pool.router)
    with pytest.raises(RouterError, match="`letters`"):
        RequestRouter(less)


def test_overrides(router: RequestRouter) -> None:
    prompt = toy_prompt("sums", 1)
    assert router.route(prompt, None, {"drafter": "coder"}) == Route(None, "coder", None, "request")
    assert router.route(prompt, None, {"task": "code"}) == Route("code", "coder", None, "request")
    assert router.route(None, None, {"task": "letters"}) == Route("letters", "general", None, "request")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("coder", "a string"),
        (["coder"], "a list"),
        (3, "a number"),
        (0.5, "a number"),
        (False, "true or false"),
        ({}, "none"),
        ({"name": "coder"}, "`name`"),
        ({"drafter": "coder", "task": "code"}, "`drafter`, `task`"),
        ({"drafter": "coder", "x": 1}, "`x`"),
        ({"drafter": None}, "null"),
        ({"drafter": 1}, "a number"),
        ({"drafter": ["coder"]}, "a list"),
        ({"task": {}}, "an object"),
        ({"drafter": "nobody"}, "`nobody`"),
        ({"drafter": "Coder"}, "`Coder`"),
        ({"drafter": ""}, "no such drafter"),
        ({"task": "coder"}, "no such task"),
        ({1: "coder"}, "`1`"),
    ],
)
def test_an_override_that_cannot_be_followed_names_what_is_known(
    router: RequestRouter, override: Any, words: str
) -> None:
    sentence = refusal(router, override)
    assert words in sentence
    assert ("`code`" in sentence) or ("`coder`" in sentence)


@pytest.mark.parametrize(
    "override",
    [
        {"drafter": "x" * 1_000_000},
        {"x" * 1_000_000: "coder"},
        {f"key{i}" * 50: i for i in range(10_000)},
        {"drafter": "a\nb\x1b[31m\ud800"},
        {"task": "\u65e5\u672c"},
        [[]] * 100_000,
    ],
)
def test_a_refusal_is_one_short_line_whatever_was_sent(router: RequestRouter, override: Any) -> None:
    assert len(refusal(router, override)) < 700


def test_a_refusal_lists_only_so_many_names() -> None:
    names = {f"task-{index:04d}": "d" for index in range(3000)}
    with pytest.raises(OverrideError, match="and 2980 more") as error:
        read_override({"task": "none"}, names, ["d"])
    assert len(str(error.value)) < 700


@given(JSON)
def test_any_json_is_followed_or_refused(override: Any) -> None:
    try:
        route = read_override(override, {"t": "d"}, ["d"])
    except OverrideError as error:
        assert str(error).isprintable()
    else:
        assert route.drafter == "d"


def test_a_tag_comes_back_as_the_same_route(router: RequestRouter) -> None:
    """With n > 1 SGLang sends the parameters of a request that was tagged once more."""
    for route in (
        router.route(toy_prompt("code", 1), None, None),
        router.route("", None, None),
        router.route("x", None, {"drafter": "coder"}),
        Route("sums", "counter", 0.25, "online"),
    ):
        tag = json.loads(json.dumps(route.to_tag()))
        assert router.route("another prompt", None, tag) == route
        assert Route.from_tag(tag) == route


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"drafter": "nobody"}, "`nobody`"),
        ({"drafter": None}, "`drafter` is not right"),
        ({"task": "nothing"}, "no such task"),
        ({"task": 3}, "`task` is not right"),
        ({"confidence": 2}, "`confidence` is not right"),
        ({"confidence": True}, "`confidence` is not right"),
        ({"confidence": float("nan")}, "`confidence` is not right"),
        ({"confidence": "0.5"}, "`confidence` is not right"),
        ({"source": "me"}, "`source` is not right"),
        ({"source": []}, "`source` is not right"),
        ({"more": 1}, "and more"),
    ],
)
def test_a_forged_tag_is_checked_like_any_override(router: RequestRouter, change: dict[str, Any], words: str) -> None:
    assert words in refusal(router, {**Route("code", "coder", 0.9, "router").to_tag(), **change})


def refusal(router: RequestRouter, override: Any) -> str:
    with pytest.raises(OverrideError) as error:
        router.route("a prompt", None, override)
    sentence = str(error.value)
    assert sentence.isascii() and sentence.isprintable() and sentence.endswith(".")
    assert sentence.startswith('custom_params["hetero"]')
    return sentence


def test_a_request_may_say_from_where_on_it_is_to_be_read(router: RequestRouter) -> None:
    code, sums = toy_prompt("code", 500), toy_prompt("sums", 500)
    whole = router.route(code + sums, None, {"read_from": 0})
    assert whole == router.route(code + sums, None, None)
    assert router.route(code + sums, None, {"read_from": len(code)}) == router.route(sums, None, None)
    assert router.route(code, None, {"read_from": len(code)}) == router.route(code, None, None)  # nothing left to read


@pytest.mark.parametrize("start", [-1, 1.0, "3", None, True, [1]])
def test_a_place_that_is_none(router: RequestRouter, start: object) -> None:
    with pytest.raises(OverrideError, match="not a number of characters"):
        router.route("text", None, {"read_from": start})
