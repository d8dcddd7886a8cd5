"""One server without speculation, asked and stopped, then one HETERO server for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.edge_cases import Answer, ask_all
from tests.support.routed_pool import RoutedPool, prompt_of, write_routed_pool
from tests.support.servers import Server, running_server

# The memory fraction counts what other programs take while the server starts; the number of tokens is the limit.
ARGS = ("--dtype", "float32", "--max-total-tokens", "8000", "--mem-fraction-static", "0.8")
GREEDY_PROMPTS = [prompt_of(task, number) for number in range(2) for task in ("sums", "code", "letters", "quiet")]
GREEDY = {"sampling_params": {"temperature": 0, "max_new_tokens": 24, "ignore_eos": True}}


@pytest.fixture(scope="package")
def routed(tmp_path_factory: pytest.TempPathFactory) -> RoutedPool:
    return write_routed_pool(tmp_path_factory.mktemp("routed"))


@pytest.fixture(scope="package")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="package")
def plain(routed: RoutedPool, logs: Path) -> tuple[dict[str, Answer], list[str]]:
    """What the server without speculation answers: to every edge case, and to GREEDY_PROMPTS."""
    with running_server(routed.target, logs / "plain.log", *ARGS) as server:
        return ask_all(server), [answer["text"] for answer in server.generate_all(GREEDY_PROMPTS, **GREEDY)]


@pytest.fixture(scope="package")
def server(routed: RoutedPool, logs: Path, plain: object) -> Iterator[Server]:
    with running_server(routed.target, logs / "hetero.log", *ARGS, *routed.args, "--enable-metrics") as server:
        yield server
