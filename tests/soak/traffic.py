"""Random requests of every sort that a server may meet, from one seed."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Any

import requests

from tests.soak.pool import DRAFTERS, GUEST, PAIRS
from tests.support.routed_pool import CONTEXT, TASKS, prompt_of
from tests.support.servers import Server

SCHEMA = json.dumps(
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}, "required": ["a", "b"]}
)
WRONG = [{"hetero": {"drafter": "nobody"}}, {"hetero": 3}, {"hetero": {"task": 1}}]


@dataclass
class Tally:
    """What became of the requests, by sort; shared by all clients."""

    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def count(self, outcome: str, problem: str | None = None) -> None:
        with self._lock:
            self.outcomes[outcome] += 1
            if problem is not None:
                self.problems.append(f"{outcome}: {problem}"[:500])


class Client:
    """Sends one request after the other, each made from this client's own random numbers."""

    def __init__(self, server: Server, tally: Tally, seed: int) -> None:
        self._server, self._tally, self._seed = server, tally, seed
        self._random = random.Random(seed)
        self._number = 0

    def send_one(self) -> None:
        self._number += 1
        kind = self._random.choices(
            ("plain", "stream", "disconnect", "abort", "batch", "refused", "guest"), (50, 15, 12, 8, 10, 5, 5)
        )[0]
        try:
            problem = getattr(self, f"_{kind}")()
        except requests.RequestException as error:
            problem = repr(error)
        self._tally.count(kind, problem)

    def _plain(self) -> str | None:
        return _problem_of(self._server.post("/generate", self._body()))

    def _batch(self) -> str | None:
        each = [self._body() for _ in range(self._random.randint(2, 4))]
        params = [{**body["sampling_params"], "n": 1} for body in each]
        texts = [self._text() for _ in each]
        return _problem_of(self._server.post("/generate", {"text": texts, "sampling_params": params}))

    def _stream(self) -> str | None:
        last: dict[str, Any] = {}
        for last in self._server.stream("/generate", self._body()):
            if "error" in last:
                return str(last)
        return None if last.get("meta_info", {}).get("hetero") else f"no route in {last}"

    def _disconnect(self) -> None:
        events = self._server.stream("/generate", self._body(longer=True))
        for _ in range(self._random.randint(1, 4)):
            next(events, None)
        events.close()

    def _abort(self) -> str | None:
        body = {**self._body(longer=True), "rid": f"{self._seed}-{self._number}"}
        body["sampling_params"]["n"] = 1
        events = self._server.stream("/generate", body)
        next(events, None)
        self._server.post("/abort_request", {"rid": body["rid"]}).raise_for_status()
        errors = [event for event in events if "error" in event]
        return str(errors) if errors else None

    def _refused(self) -> str | None:
        body = self._body()
        body["sampling_params"]["custom_params"] = self._random.choice(WRONG)
        status = self._server.post("/generate", body).status_code
        return None if status == 400 else f"status {status}"

    def _guest(self) -> str | None:
        """An adapter that may not be there just now."""
        body = self._body()
        body["sampling_params"]["custom_params"] = {"hetero": {"drafter": GUEST}}
        response = self._server.post("/generate", body)
        return None if response.status_code == 400 and GUEST in response.text else _problem_of(response)

    def _body(self, *, longer: bool = False) -> dict[str, Any]:
        draw = self._random
        params = _sampling_params(draw)
        params["max_new_tokens"] = draw.randint(100, 200) if longer else draw.choice((0, 1, 2, 8, 30, 80))
        if "min_new_tokens" in params:
            params["min_new_tokens"] = min(params["min_new_tokens"], params["max_new_tokens"])
        if draw.random() < 0.7:
            params["custom_params"] = {"hetero": _override(draw)}
        body: dict[str, Any] = {"sampling_params": params}
        if draw.random() < 0.3:
            body["input_ids"] = [draw.randint(2, 257) for _ in range(draw.choice((1, 2, 17, 130, CONTEXT - 220)))]
        else:
            body["text"] = self._text()
        if draw.random() < 0.15:
            body.update(return_logprob=True, top_logprobs_num=draw.randint(0, 3), logprob_start_len=-1)
        return body

    def _text(self) -> str:
        """Few openings, so that the prefix cache has work; a random end, so that it does not have all of it."""
        task = self._random.choice(list(TASKS))
        return prompt_of(task, self._random.randint(1, 6)) * self._random.choice((1, 1, 2, 3)) + (
            "" if self._random.random() < 0.3 else str(self._random.random())
        )


def _override(draw: random.Random) -> dict[str, Any]:
    sort = draw.choices(("drafter", "drafters", "task"), (50, 30, 20))[0]
    if sort == "drafters":
        return {"drafters": draw.sample(draw.choice(PAIRS), 2)}
    return {"drafter": draw.choice(DRAFTERS)} if sort == "drafter" else {"task": draw.choice(list(TASKS))}


def come_and_go(server: Server, adapter: Path, tally: Tally, halt: Event) -> None:
    """Loads and unloads GUEST, and asks for it while it is there, until `halt`."""
    number = 0
    while not halt.is_set():
        number += 1
        try:
            loaded = server.post("/load_lora_adapter", {"lora_name": GUEST, "lora_path": str(adapter)}).json()
            request = {"temperature": 0, "max_new_tokens": 20, "custom_params": {"hetero": {"drafter": GUEST}}}
            answer = server.generate(prompt_of("letters", number), sampling_params=request)
            gone = server.post("/unload_lora_adapter", {"lora_name": GUEST}).json()
            drafter = answer["meta_info"]["hetero"]["drafter"]
            is_well = loaded["success"] and gone["success"] and drafter == GUEST
            tally.count("come and go", None if is_well else f"{loaded} {drafter} {gone}")
        except requests.RequestException as error:
            tally.count("come and go", repr(error))
        halt.wait(0.3)


def _sampling_params(draw: random.Random) -> dict[str, Any]:
    params: dict[str, Any] = {"temperature": draw.choice((0, 0, 0.7, 1.3)), "ignore_eos": draw.random() < 0.5}
    for chance, name, value in (
        (0.2, "top_k", draw.choice((1, 5, 50))),
        (0.2, "top_p", draw.choice((0.5, 0.95))),
        (0.1, "min_p", 0.1),
        (0.1, "frequency_penalty", 0.4),
        (0.1, "presence_penalty", -0.3),
        (0.1, "repetition_penalty", 1.2),
        (0.1, "min_new_tokens", 5),
        (0.2, "stop", ["e", "\n\n"]),
        (0.1, "stop_token_ids", [40, 41]),
        (0.1, "n", 2),
        (0.1, "json_schema", SCHEMA),
        (0.05, "logit_bias", {"50": 3.0}),
    ):
        if draw.random() < chance:
            params[name] = value
    if "json_schema" in params:
        params.pop("min_new_tokens", None)
    return params


def _problem_of(response: requests.Response) -> str | None:
    if response.status_code != 200:
        return f"status {response.status_code}: {response.text[:300]}"
    answers = response.json()
    for answer in answers if isinstance(answers, list) else [answers]:
        if "hetero" not in answer["meta_info"]:
            return f"no route in {answer['meta_info']}"
    return None
