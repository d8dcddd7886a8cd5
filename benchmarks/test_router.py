"""How long one prompt takes the router, by length, as text and as token ids, with warm and with cold caches.

    pytest benchmarks/test_router.py            # or: python -m benchmarks.test_router, for medians and 99th percentiles

Cold is the bound for a server: before every prompt 48 MB are read, more than the processor's caches hold. What a
running server needs is in `benchmarks/route_latency.py`. Nothing is asserted: time is the machine's.
"""

from __future__ import annotations

import hashlib
import random
import time
from array import array
from collections.abc import Callable

import numpy as np
import pytest

from sglang_hetero_spec.router.excerpt import excerpt_ids
from sglang_hetero_spec.router.fit import fit_router
from sglang_hetero_spec.router.predict import LinearRouter

LENGTHS = (10, 100, 1_000, 10_000, 100_000)
FORMS = ("text", "ids")
_TASKS = 6
_WORDS = ["".join(random.Random(n).choices("etaoinshrdlucm", k=2 + n % 9)) for n in range(4000)]
_CACHE = bytearray(48 << 20)


def make_text(task: int, length: int, seed: int) -> str:
    """Words of which each task has its own favourites."""
    draw = random.Random(seed)
    first = 400 * task
    words = (
        draw.choice(_WORDS[first : first + 400]) if draw.random() < 0.4 else draw.choice(_WORDS) for _ in iter(int, 1)
    )
    text = ""
    while len(text) < length:
        text += next(words) + " "
    return text[:length]


def make_router() -> LinearRouter:
    pairs = [(make_text(n % _TASKS, 600, n), f"task{n % _TASKS}") for n in range(240)]
    return fit_router([text for text, _ in pairs], [task for _, task in pairs]).router


def decode(ids: list[int]) -> str:
    """A stand-in for a tokenizer, whose own time is not the router's."""
    return " ".join([_WORDS[i] for i in ids])


def make_call(router: LinearRouter, length: int, form: str) -> Callable[[], object]:
    """One prompt routed; twenty different prompts in turn."""
    texts = [make_text(n % _TASKS, length, 1000 + n) for n in range(20)]
    number = {word: index for index, word in enumerate(_WORDS)}
    ids = [array("q", [number.get(word, 0) for word in text.split()]) for text in texts]
    spec = router.config.features
    position = 0

    def call() -> object:
        nonlocal position
        position = (position + 1) % len(texts)
        if form == "text":
            return router.predict(texts[position])
        return router.predict_excerpt(excerpt_ids(ids[position], decode, spec.head_bytes, spec.tail_bytes))

    return call


@pytest.fixture(scope="module")
def router() -> LinearRouter:
    return make_router()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", LENGTHS)
def test_route_time(benchmark, router: LinearRouter, length: int, form: str) -> None:  # type: ignore[no-untyped-def]
    benchmark.group = f"router, {form}"
    benchmark(make_call(router, length, form))


def seconds(call: Callable[[], object], rounds: int, cold: bool) -> np.ndarray:
    """Wall time of each call."""
    taken = np.empty(rounds)
    for index in range(rounds):
        if cold:
            hashlib.md5(_CACHE, usedforsecurity=False).digest()
        start = time.perf_counter()
        call()
        taken[index] = time.perf_counter() - start
    return taken


def main() -> None:
    router = make_router()
    print(f"{'form':5} {'characters':>10} {'caches':>6} {'median us':>10} {'p99 us':>8}")
    for form in FORMS:
        for length in LENGTHS:
            call = make_call(router, length, form)
            for cold, rounds in ((False, 3000), (True, 60)):
                taken = seconds(call, rounds, cold)[rounds // 20 :] * 1e6
                name = "cold" if cold else "warm"
                print(f"{form:5} {length:10,} {name:>6} {np.median(taken):10.0f} {np.percentile(taken, 99):8.0f}")


if __name__ == "__main__":
    main()
