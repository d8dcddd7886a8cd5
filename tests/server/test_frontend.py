"""SGLang frontend programs: each `gen` is a request of its own, routed by its own text or by what the program says."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.conftest import GREEDY_PROMPTS
from tests.support.routed_pool import TASKS, prompt_of
from tests.support.servers import Server


class Later:
    """A module, imported when it is used: once SGLang is there, the CPU engine cannot be set up for tests/worker."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if _is_pytests(name):
            raise AttributeError(name)
        return getattr(importlib.import_module(self._name), name)


class program:
    """sgl.function, when it is used."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __getattr__(self, name: str) -> Any:
        if _is_pytests(name):
            raise AttributeError(name)
        return getattr(sgl.function(self._function), name)


def _is_pytests(name: str) -> bool:
    """Collection looks for these in everything that a module has."""
    return name.startswith(("_", "pytest"))


sgl: Any = Later("sglang")
frontend: Any = Later("sglang_hetero_spec.frontend")
SHORT: dict[str, Any] = {"max_tokens": 8, "temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def endpoint(server: Server) -> Iterator[Any]:
    endpoint = frontend.HeteroEndpoint(server.url)
    yield endpoint


def served(state: Any, name: str) -> dict[str, Any]:
    return state.get_meta_info(name)["hetero"]


def by_router(state: Any, tasks: list[str]) -> bool:
    return all(
        (served(state, task)["task"], served(state, task)["drafter"], served(state, task)["source"])
        == (task, TASKS[task], "router")
        for task in tasks
    )


@program
def one_after_the_other(s: Any, tasks: list[str]) -> None:
    for task in tasks:
        s += prompt_of(task) + sgl.gen(task, **SHORT) + "\n\n"


@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_one_text_are_routed_each_by_its_own_part(endpoint: Any, stream: bool) -> None:
    tasks = ["code", "sums", "letters", "quiet"]
    state = one_after_the_other.run(tasks=tasks, backend=endpoint, stream=stream)
    if stream:
        "".join(state.text_iter())
    assert by_router(state, tasks) and state.error() is None


@program
def forks(s: Any) -> None:
    s += prompt_of("sums") + sgl.gen("sums", **SHORT) + "\n"
    branches = s.fork(3)
    for branch, task in zip(branches, ("code", "letters", "quiet"), strict=True):
        branch += prompt_of(task) + sgl.gen(task, **SHORT)
    for branch, task in zip(branches, ("code", "letters", "quiet"), strict=True):
        assert by_router(branch, [task])
    branches.join()
    s += "\n" + prompt_of("letters", 2) + sgl.gen("letter", **SHORT)


def test_forks_are_routed_each_by_its_own_part(endpoint: Any) -> None:
    state = forks.run(backend=endpoint)
    assert state.error() is None and by_router(state, ["sums"])
    assert served(state, "letter")["task"] == "letters"


@program
def overridden(s: Any, stream: bool = False) -> None:
    s += prompt_of("sums") + frontend.gen("by drafter", drafter="small", **SHORT)
    s += frontend.gen("by task", task="code", **SHORT)
    s += frontend.gen("a number", drafter="near", dtype=int, **SHORT)
    s += "\n\n" + prompt_of("letters") + frontend.gen("by nothing", **SHORT)


@pytest.mark.parametrize("stream", [False, True])
def test_a_program_chooses(endpoint: Any, stream: bool) -> None:
    state = overridden.run(backend=endpoint, stream=stream)
    text = "".join(state.text_iter()) if stream else state.text()
    assert state.error() is None and state["by task"] in text
    found = {
        name: (served(state, name)["drafter"], served(state, name)["source"]) for name in ("by drafter", "by task")
    }
    assert found == {"by drafter": ("small", "request"), "by task": ("near", "request")}
    assert served(state, "by task")["task"] == "code"
    assert served(state, "a number")["drafter"] == "near" and state["a number"].strip("0123456789+- \n") == ""
    assert served(state, "by nothing")["source"] == "router"


def test_batches_and_the_same_text_as_without_overrides(endpoint: Any, plain: tuple) -> None:
    @program
    def answer(s: Any, prompt: str) -> None:
        s += prompt
        s += frontend.gen("answer", 24, drafter="same", temperature=0, ignore_eos=True)

    states = answer.run_batch([{"prompt": prompt} for prompt in GREEDY_PROMPTS], backend=endpoint, num_threads=4)
    assert [state["answer"] for state in states] == plain[1]
    assert {served(state, "answer")["drafter"] for state in states} == {"same"}


def test_an_unknown_name_is_the_server_s_sentence(endpoint: Any) -> None:
    @program
    def wrong(s: Any) -> None:
        s += "hello" + frontend.gen("a", drafter="nobody", **SHORT)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        error = wrong.run(backend=endpoint).error()
    assert "`nobody`" in str(error) and "`small`" in str(error)


def test_sglang_s_own_backend_says_what_is_missing(server: Server) -> None:
    from sglang.lang.backend.runtime_endpoint import RuntimeEndpoint

    @program
    def wrong(s: Any) -> None:
        s += "hello" + frontend.gen("a", drafter="near", **SHORT)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        error = wrong.run(backend=RuntimeEndpoint(server.url)).error()
    assert "needs frontend.HeteroEndpoint" in str(error)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"drafter": "near", "task": "sums"}, r"gen\('a'\) has drafter and task; give one of them\."),
        ({"drafter": "near", "choices": ["x", "y"]}, r"gen\('a'\) has choices, .* leave out drafter\."),
    ],
)
def test_what_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frontend.gen("a", **arguments)
