from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.engine.cases import NUM_PROMPTS, mixed_prompts
from tests.engine.compare import Comparison, Tally
from tests.engine.fleet import Fleet, Reference
from tests.engine.pools import Models, demo_models, tiny_models, write_pool
from tests.support.figures import print_at_the_end
from tests.support.servers import Server

TALLY = Tally()


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return demo_models() or tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="package")
def prompts(models: Models) -> list[str]:
    return mixed_prompts(models.heldout, NUM_PROMPTS)


@pytest.fixture(scope="package")
def fleet(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("servers")
    fleet = Fleet(models, write_pool(folder, models), folder)
    yield fleet
    fleet.close()


@pytest.fixture(scope="package")
def reference(fleet: Fleet) -> Reference:
    """The same engine without speculation."""
    return Reference(fleet.usual("reference"))


@pytest.fixture(scope="package")
def hetero_server(fleet: Fleet) -> Server:
    return fleet.usual("hetero")


@pytest.fixture
def hetero(hetero_server: Server) -> Iterator[Server]:
    """HETERO with the whole pool, its cache empty; after the test nothing may be left but cached prefixes."""
    hetero_server.flush_cache()
    yield hetero_server
    assert_nothing_left(hetero_server)


@pytest.fixture(scope="package")
def same_tokens(reference: Reference) -> Comparison:
    return Comparison(TALLY, reference.best_two)


def assert_nothing_left(server: Server) -> None:
    """No request, no KV slot; SGLang's own checks would have ended the process."""
    deadline = time.monotonic() + 20
    while (load := server.load())["num_running_reqs"] + load["num_waiting_reqs"] and time.monotonic() < deadline:
        time.sleep(0.1)
    server.flush_cache()
    load = server.load()
    assert load["num_used_tokens"] == 0, load
    assert server.is_alive()
    log = server.log.read_text()
    assert "leak" not in log and "Traceback" not in log, log[-4000:]


def _figures() -> list[str]:
    if not TALLY.answers:
        return []
    ties = [f"  tie: {tie}" for tie in TALLY.ties]
    return [f"engine: {TALLY.answers} answers compared, {TALLY.tokens} tokens equal, {len(TALLY.ties)} ties", *ties]


print_at_the_end(_figures)
