"""Fake servers, and a pool with a profile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.bench.fake import Fake


@pytest.fixture
def start_fake() -> Iterator[Callable[..., Fake]]:
    with fakes() as start:
        yield start


@contextlib.contextmanager
def fakes() -> Iterator[Callable[..., Fake]]:
    """What starts one, by its algorithm; all end with the context."""
    servers: list[Fake] = []

    def start(algorithm: str | None = "HETERO") -> Fake:
        servers.append(Fake(algorithm).start())
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def fake(start_fake: Callable[..., Fake]) -> Fake:
    return start_fake()
