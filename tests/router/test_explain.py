from __future__ import annotations

import json
import re

import numpy as np
import pytest

from sglang_hetero_spec.pool import Pool
from sglang_hetero_spec.router.explain import _gains, route_prompts, top_terms
from sglang_hetero_spec.router.fit import FittedRouter
from sglang_hetero_spec.router.route import RequestRouter
from tests.router.conftest import make_pool
from tests.router.toy import toy_prompt


def test_a_record_says_what_the_server_would_do(pool: Pool) -> None:
    prompts = [toy_prompt("code", 3), "", "Tom \ud800 " * 2000]
    records = route_prompts(pool, prompts)
    router = RequestRouter(pool)
    for prompt, record in zip(prompts, records, strict=True):
        assert record["prompt"] == prompt
        keys = ("task", "drafter", "confidence", "source")
        assert {key: record[key] for key in keys} == router.route(prompt, None, None).to_tag()
        assert record["microseconds"] > 0
        json.dumps(record)
    assert sum(records[0]["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert records[0]["probabilities"]["code"] == records[0]["confidence"]
    assert (records[1]["probabilities"], records[1]["top_terms"]) == ({}, [])


def test_without_a_router() -> None:
    [record] = route_prompts(make_pool(None), ["a prompt"])
    assert (record["drafter"], record["source"], record["top_terms"]) == ("general", "fallback", [])


def test_the_terms_are_in_the_prompt_and_speak_for_the_task(fitted: FittedRouter) -> None:
    prompt = toy_prompt("code", 3)
    terms = top_terms(fitted.router, prompt, "code", 8)
    assert len(terms) == 8
    weights = [term["weight"] for term in terms]
    assert weights == sorted(weights, reverse=True) and weights[-1] > 0
    folded = f"^{re.sub('[0-9]', '0', prompt.lower())}$"
    assert all(term["term"] in folded for term in terms)
    against = top_terms(fitted.router, prompt, "sums", 8)
    assert {(t["sort"], t["term"]) for t in terms}.isdisjoint((t["sort"], t["term"]) for t in against)


def test_the_one_word_that_speaks_for_a_task_comes_first(fitted: FittedRouter) -> None:
    first, *_ = top_terms(fitted.router, "zzzz apples zzzz", "sums", 3)
    assert (first["sort"], first["term"]) == ("word", "apples")


def test_all_terms_together_are_the_whole_difference(fitted: FittedRouter) -> None:
    """The sum of the gains is the task's score above the mean, so nothing is counted twice or left out."""
    text = "How many items does the Python list of Tom have, Tom? " * 3
    probabilities = np.log(fitted.router.predict(text).probabilities)
    for index, task in enumerate(fitted.router.classes):
        excerpt = fitted.router.hasher.excerpt(text)
        gains = _gains(fitted.router, excerpt, task)
        assert sum(gains.values()) == pytest.approx(probabilities[index] - probabilities.mean(), abs=1e-4)
        shown = top_terms(fitted.router, text, task, 10_000)
        assert sum(term["weight"] for term in shown) >= sum(gains.values()) - 1e-2


def test_a_word_of_any_length_is_shown_short(fitted: FittedRouter) -> None:
    terms = top_terms(fitted.router, "apples" * 50_000, "sums", 3)
    assert terms and all(len(term["term"]) <= 32 for term in terms)
