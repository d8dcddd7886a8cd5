"""Random mixed traffic on one server: nothing stays behind, memory is flat, and the text is still the target's.

HETERO_SOAK_SECONDS says how long (120 in CI); the run by hand is `pytest -m soak tests/soak`, 30 minutes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.soak.inspection import Inspector, environment
from tests.soak.pool import COPIES, CORPUS_TOKENS, DRAFTERS, PAIRS, SoakedPool, write_soaked_pool
from tests.soak.traffic import Client, Tally, come_and_go
from tests.support.routed_pool import TASKS, prompt_of
from tests.support.servers import Server, running_server

NUM_CLIENTS = 8
MAX_REQUESTS = 200_000
MAX_RUNNING = 6
# A KV pool too small for the traffic, so that requests are retracted, and prefills in chunks.
ARGS = ("--dtype", "float32", "--max-total-tokens", "2000", "--chunked-prefill-size", "64")
ARGS += ("--mem-fraction-static", "0.8")
ARGS += ("--max-running-requests", str(MAX_RUNNING))
GREEDY = {"sampling_params": {"temperature": 0, "max_new_tokens": 48, "ignore_eos": True}}
PROMPTS = [prompt_of(task, number) for task in TASKS for number in range(4)]
NOT_ERRORS = ("Ignore import error", "[http_server] Error: custom_params")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> SoakedPool:
    return write_soaked_pool(tmp_path_factory.mktemp("soaked"))


@pytest.fixture(scope="module")
def reference(pool: SoakedPool, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    with running_server(pool.routed.target, tmp_path_factory.mktemp("plain") / "log", *ARGS) as server:
        return [answer["text"] for answer in server.generate_all(PROMPTS, concurrency=4, **GREEDY)]


@pytest.mark.soak
def test_two_minutes(pool: SoakedPool, reference: list[str], tmp_path: Path) -> None:
    soak(pool, reference, tmp_path, float(os.environ.get("HETERO_SOAK_SECONDS", "120")))


@pytest.mark.soak
def test_half_an_hour(pool: SoakedPool, reference: list[str], tmp_path: Path) -> None:
    soak(pool, reference, tmp_path, float(os.environ.get("HETERO_SOAK_SECONDS", "1800")))


def soak(pool: SoakedPool, reference: list[str], folder: Path, seconds: float) -> None:
    log = folder / "soak.log"
    with running_server(pool.routed.target, log, *ARGS, *pool.args, env=environment(folder)) as server:
        inspector = Inspector(server, folder)
        before = inspector.holdings("scheduler")["ngram"]
        tally = Tally()
        samples: list[dict[str, float]] = []
        traffic(server, pool.guest, tally, seconds, sample=lambda: samples.append(inspector.memory()))
        report(tally, samples)
        assert not tally.problems
        assert server.is_alive()
        check_nothing_is_left(inspector)
        fill_corpora(server)
        check_corpora(before, inspector.holdings("scheduler")["ngram"])
        check_text(server, reference)
        check_memory(samples)
    check_log(log.read_text())


def traffic(server: Server, guest: Path, tally: Tally, seconds: float, sample: Callable[[], None]) -> None:
    """NUM_CLIENTS at a time for `seconds`, memory sampled 20 times, the first once a tenth of the time is over."""
    start = time.monotonic()
    halt = threading.Event()

    def run(seed: int) -> None:
        client = Client(server, tally, seed)
        while not halt.is_set() and tally.outcomes.total() < MAX_REQUESTS:
            client.send_one()

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(NUM_CLIENTS)]
    threads.append(threading.Thread(target=come_and_go, args=(server, guest, tally, halt)))
    for thread in threads:
        thread.start()
    try:
        for number in range(1, 21):
            time.sleep(max(0.0, start + seconds * (0.1 + 0.9 * number / 20) - time.monotonic()))
            sample()
    finally:
        halt.set()
        for thread in threads:
            thread.join(timeout=300)
    assert not any(thread.is_alive() for thread in threads), "a client never got its answer"


def check_nothing_is_left(inspector: Inspector) -> None:
    deadline = time.monotonic() + 30
    while True:
        held = inspector.holdings("scheduler")
        slots = held["scheduler"]
        busy = {name: slots[name] for name in slots if name != "kv_cached" and slots[name]}
        if not busy or time.monotonic() > deadline:
            break
        time.sleep(1)
    print("left behind:", held, inspector.holdings("tokenizer"))
    assert not busy, busy
    # The scheduler may keep the batch that it ran last, with the requests that were in it.
    assert held["objects"]["RequestState"] <= MAX_RUNNING
    assert held["objects"]["Req"] <= MAX_RUNNING
    assert inspector.holdings("tokenizer")["rid_to_state"] == 0
    inspector.server.flush_cache()
    assert inspector.holdings("scheduler")["scheduler"]["kv_cached"] == 0


def fill_corpora(server: Server) -> None:
    """More than twice, however little of the traffic was theirs."""
    for name in COPIES:
        fields = {"sampling_params": {**GREEDY["sampling_params"], "custom_params": {"hetero": {"drafter": name}}}}
        server.generate_all(3 * PROMPTS, **fields)


def check_corpora(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> None:
    """Full, overwritten more than once, and no byte larger; no text of a request that is over."""
    print("n-grams:", after)
    assert len(after) == 2
    for name, held in after.items():
        assert held["num_bytes"] == before[name]["num_bytes"], name
        assert held["num_tokens"] == CORPUS_TOKENS < held["num_inserted"] / 2, name
        assert held["texts"] <= MAX_RUNNING, name


def check_text(server: Server, reference: list[str]) -> None:
    """Whoever drafts: the router's choice, each drafter, each pair."""
    overrides = [{}, *({"drafter": name} for name in DRAFTERS), *({"drafters": list(pair)} for pair in PAIRS)]
    for override in overrides:
        fields = {"sampling_params": {**GREEDY["sampling_params"], "custom_params": {"hetero": override}}}
        answers = server.generate_all(PROMPTS, concurrency=4, **(fields if override else GREEDY))
        assert [answer["text"] for answer in answers] == reference, override


def report(tally: Tally, samples: list[dict[str, float]]) -> None:
    print("\nrequests:", tally.outcomes.total(), dict(tally.outcomes))
    for name in samples[0]:
        print(f"{name} MiB:", " ".join(f"{row[name]:.0f}" for row in samples))


def check_memory(samples: list[dict[str, float]]) -> None:
    """Flat: the last quarter at most 3% or 20 MiB above the second quarter (caches fill in the first)."""
    quarter = len(samples) // 4
    for name in samples[0]:
        series = [row[name] for row in samples]
        early, late = max(series[quarter : 2 * quarter]), max(series[-quarter:])
        assert late <= max(early * 1.03, early + 20), (name, series)


def check_log(text: str) -> None:
    bad = [
        line
        for line in text.splitlines()
        if any(word in line for word in ("Error", "Traceback", "leak", "ERROR"))
        and not any(known in line for known in NOT_ERRORS)
    ]
    assert not bad, bad[:5]
