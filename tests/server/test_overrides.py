"""An override that cannot be followed is HTTP 400, one sentence with the known names, and nothing else happens."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.routed_pool import DRAFTERS, TASKS
from tests.support.servers import Server

UNKNOWN = {"a drafter": {"drafter": "nobody"}, "a task": {"task": "nothing"}}
WRONG = {
    "a string": "same",
    "a list": ["same"],
    "a number": 1,
    "true": True,
    "an empty object": {},
    "both keys": {"drafter": "same", "task": "sums"},
    "an unknown key": {"draftr": "same"},
    "a key too many": {"drafter": "same", "strict": True},
    "a number for a drafter": {"drafter": 0},
    "null for a drafter": {"drafter": None},
    "a list for a task": {"task": ["sums"]},
    "a name of another case": {"drafter": "Same"},
    "a line break": {"drafter": "no\nbody"},
}
OVERRIDES = [*UNKNOWN.values(), *WRONG.values()]
names = pytest.mark.parametrize("override", OVERRIDES, ids=[*UNKNOWN, *WRONG])


def params(custom: Any) -> dict[str, Any]:
    return {"max_new_tokens": 4, "temperature": 0, "custom_params": custom}


def message_of(response: Any) -> str:
    assert response.status_code == 400, response.text
    content = response.json()
    return content["error"]["message"] if "error" in content else content["message"]


def check_message(message: str, override: Any) -> None:
    known = TASKS if isinstance(override, dict) and list(override) == ["task"] else DRAFTERS
    assert all(f"`{name}`" in message for name in known), message
    assert message.endswith(".") and "\n" not in message and "Traceback" not in message
    assert ". " not in message  # one sentence


def check_unharmed(server: Server) -> None:
    answer = server.generate("next", sampling_params=params({"hetero": {"drafter": "same"}}))
    assert answer["meta_info"]["hetero"]["drafter"] == "same" and answer["meta_info"]["completion_tokens"] == 4


@names
def test_generate(server: Server, override: Any) -> None:
    body = {"text": "hello", "sampling_params": params({"hetero": override})}
    check_message(message_of(server.post("/generate", body)), override)
    check_unharmed(server)


@names
def test_completions_and_chat(server: Server, override: Any) -> None:
    fields = {"model": "m", "max_tokens": 4, "custom_params": {"hetero": override}}
    check_message(message_of(server.post("/v1/completions", {**fields, "prompt": "hello"})), override)
    messages = [{"role": "user", "content": "hello"}]
    check_message(message_of(server.post("/v1/chat/completions", {**fields, "messages": messages})), override)


@pytest.mark.parametrize("custom", ["same", ["same"], 3, False])
def test_custom_params_that_are_no_object(server: Server, custom: Any) -> None:
    message = message_of(server.post("/generate", {"text": "hello", "sampling_params": params(custom)}))
    check_message(message, None)
    response = server.post("/v1/completions", {"model": "m", "prompt": "a", "max_tokens": 2, "custom_params": custom})
    assert response.status_code == 400 and "custom_params" in response.text  # SGLang's own schema refuses it
    check_unharmed(server)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_bad_request_of_a_batch(server: Server, place: int) -> None:
    each = [params({"hetero": {"drafter": "same"}}) for _ in range(3)]
    each[place] = params({"hetero": {"drafter": "nobody"}})
    response = server.post("/generate", {"text": ["a", "b", "c"], "sampling_params": each})
    check_message(message_of(response), UNKNOWN["a drafter"])
    check_unharmed(server)


def test_with_several_samples(server: Server) -> None:
    body = {"text": "hello", "sampling_params": {**params({"hetero": "same"}), "n": 3}}
    check_message(message_of(server.post("/generate", body)), None)
    check_unharmed(server)


def test_a_stream_ends_with_the_error(server: Server) -> None:
    body = {"text": "hello", "sampling_params": params({"hetero": UNKNOWN["a task"]})}
    events = list(server.stream("/generate", body))
    assert len(events) == 1 and events[0]["error"]["code"] == 400
    check_message(events[0]["error"]["message"], UNKNOWN["a task"])
    check_unharmed(server)
