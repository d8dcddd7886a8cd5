"""What `hetero-spec route` shows: the decision for a prompt, what spoke for it, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from sglang_hetero_spec.pool import Pool
from sglang_hetero_spec.router.features import Term
from sglang_hetero_spec.router.predict import LinearRouter
from sglang_hetero_spec.router.route import RequestRouter

_TIMED_CALLS = 5


def route_prompts(pool: Pool, prompts: Sequence[str], *, num_terms: int = 5) -> list[dict[str, Any]]:
    """One JSON-safe record for each prompt.

    Keys: prompt, task, drafter, confidence, source (as in `Route`), probabilities (task -> float), top_terms
    (what spoke most for the task, strongest first), microseconds (median of a few calls, the routing alone).
    """
    router = RequestRouter(pool)
    return [_record(router, prompt, num_terms) for prompt in prompts]


def top_terms(router: LinearRouter, text: str, task: str, count: int) -> list[dict[str, Any]]:
    """The n-grams of `text` that raise the score of `task` most above the mean of all tasks, strongest first.

    Each is `{"sort", "term", "weight"}`. n-grams that share a bucket share a weight and count once, as the
    longest of them; `^` and `$` stand for the prompt's ends, `...` for what was left out of a long one.
    """
    excerpt = router.hasher.excerpt(text)
    buckets, values = router.hasher.vector(excerpt)
    weights = router.coefficients.take(buckets, axis=0)
    gains = values * (weights[:, router.classes.index(task)] - weights.mean(axis=1))
    terms = _longest_terms(router.hasher.buckets(excerpt).tolist(), router.hasher.terms(excerpt))
    strongest = [i for i in np.argsort(-gains, kind="stable")[:count].tolist() if gains[i] > 0]
    return [{**terms[int(buckets[i])]._asdict(), "weight": round(float(gains[i]), 4)} for i in strongest]


def _record(router: RequestRouter, prompt: str, num_terms: int) -> dict[str, Any]:
    route = router.route(prompt, None, None)
    seconds = [_seconds(router, prompt) for _ in range(_TIMED_CALLS)]
    prediction = router.predict(prompt, None)
    classifier = router.router
    probabilities: dict[str, float] = {}
    terms: list[dict[str, Any]] = []
    if prediction is not None and classifier is not None:
        rounded = (round(float(p), 4) for p in prediction.probabilities)
        probabilities = dict(zip(classifier.classes, rounded, strict=True))
        terms = top_terms(classifier, prompt, prediction.task, num_terms)
    return {
        "prompt": prompt,
        **route.to_tag(),
        "probabilities": probabilities,
        "top_terms": terms,
        "microseconds": round(float(np.median(seconds)) * 1e6, 1),
    }


def _seconds(router: RequestRouter, prompt: str) -> float:
    start = time.perf_counter()
    router.route(prompt, None, None)
    return time.perf_counter() - start


def _longest_terms(buckets: list[int], terms: list[Term]) -> dict[int, Term]:
    found: dict[int, Term] = {}
    for bucket, term in zip(buckets, terms, strict=True):
        if bucket not in found or len(term.term) > len(found[bucket].term):
            found[bucket] = term
    return found
