"""Requests that end in the middle: the rest is untouched and nothing stays behind."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

from tests.engine.cases import Case, cases_of
from tests.engine.compare import Comparison
from tests.engine.fleet import Reference, ask
from tests.engine.pools import EVERYONE
from tests.support.servers import Server

LONG = 400


class Leavers:
    """Clients beside the ones that are compared: they ask for long answers and never hear the end of them."""

    def __init__(self, server: Server, prompts: list[str]) -> None:
        self.server, self.prompts = server, prompts
        self.events_seen: list[int] = []
        self.reasons: list[str] = []
        self._over = threading.Event()
        self._threads = ThreadPoolExecutor(4)
        self._jobs: list[Future] = []

    def __enter__(self) -> Leavers:
        self._jobs = [self._threads.submit(self._run, number) for number in range(4)]
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        for job in self._jobs:
            job.result()

    def _run(self, number: int) -> None:
        drafters = itertools.cycle(EVERYONE[number:] + EVERYONE[:number])
        for turn in itertools.count():
            if self._over.is_set():
                return
            case = Case(self.prompts[(7 * turn + number) % len(self.prompts)], drafter=next(drafters))
            case = case.with_params(max_new_tokens=LONG)
            if number % 2:
                self._hang_up(case, 2 + turn % 5)
            else:
                self._take_back(case, f"leaver-{number}-{turn}", 1 + turn % 4)
            time.sleep(0.2)

    def _hang_up(self, case: Case, num_events: int) -> None:
        events = self.server.stream("/generate", {"text": case.prompt, **case.request()})
        self.events_seen.append(len(list(itertools.islice(events, num_events))))
        events.close()

    def _take_back(self, case: Case, rid: str, num_events: int) -> None:
        events = self.server.stream("/generate", {"text": case.prompt, "rid": rid, **case.request()})
        list(itertools.islice(events, num_events))
        self.server.post("/abort_request", {"rid": rid}).raise_for_status()
        *_, last = events
        self.reasons.append((last["meta_info"]["finish_reason"] or {}).get("type"))


def test_aborts_in_the_middle(
    hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]
) -> None:
    cases = cases_of(prompts[:32], EVERYONE)
    expected = reference.answers(cases)
    with Leavers(hetero, prompts) as leavers:
        answers = ask(hetero, cases)
    same_tokens.answers(cases, expected, answers)
    print(f"{len(leavers.events_seen)} hung up, {len(leavers.reasons)} were taken back")
    assert len(leavers.events_seen) >= 4 and min(leavers.events_seen) >= 1
    assert len(leavers.reasons) >= 4 and set(leavers.reasons) == {"abort"}


def test_abort_of_everything(hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]) -> None:
    """All at once, then the same rows and slots are used again."""
    cases = cases_of(prompts[:16], EVERYONE)
    stopper = threading.Timer(1.5, lambda: hetero.post("/abort_request", {"abort_all": True}))
    stopper.start()
    stopped = ask(hetero, [case.with_params(max_new_tokens=LONG) for case in cases])
    assert any(answer["meta_info"]["finish_reason"]["type"] == "abort" for answer in stopped)
    same_tokens.answers(cases, reference.answers(cases), ask(hetero, cases))
