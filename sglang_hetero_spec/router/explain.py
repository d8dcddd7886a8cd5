"""What `hetero-spec route` shows: the decision for a prompt, what spoke for it, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from sglang_hetero_spec.pool import Pool
from sglang_hetero_spec.router.errors import shortened
from sglang_hetero_spec.router.excerpt import Excerpt
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
    """What in `text` raises the score of `task` most above the mean of all tasks, strongest first.

    Each is `{"term", "sort", "weight"}`: a word with the characters in and around it, a pair of neighbouring
    words, or characters between words. `^` and `$` stand for the prompt's ends, `...` for what was left out.
    """
    excerpt = router.hasher.excerpt(text)
    terms = router.hasher.terms(excerpt)
    gain_of_bucket = _gains(router, excerpt, task)
    word_at = {position: word for word in terms if word.sort == "word" for position in range(word.start, word.end)}
    gains: dict[tuple[str, str], float] = {}
    for bucket, term in zip(router.hasher.buckets(excerpt).tolist(), terms, strict=True):
        whole = word_at.get((term.start + term.end) // 2, term) if term.sort == "characters" else term
        shown = (router.hasher.readable(excerpt, whole.start, whole.end), whole.sort)
        # A feature counts once, however often it occurs and whatever else falls into its bucket.
        gains[shown] = gains.get(shown, 0.0) + gain_of_bucket.pop(bucket, 0.0)
    strongest = sorted(gains, key=lambda shown: -gains[shown])[:count]
    return [
        {"term": shortened(term, 32), "sort": sort, "weight": round(gains[term, sort], 4)}
        for term, sort in strongest
        if gains[term, sort] > 0
    ]


def _gains(router: LinearRouter, excerpt: Excerpt, task: str) -> dict[int, float]:
    buckets, values = router.hasher.vector(excerpt)
    weights = router.coefficients.take(buckets, axis=0)
    gains = values * (weights[:, router.classes.index(task)] - weights.mean(axis=1))
    return dict(zip(buckets.tolist(), gains.tolist(), strict=True))


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
