"""Whatever a manifest or a file of the pool holds: a pool, or one sentence; never another exception."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from fake_pool import FakePool
from foreign_pool import ForeignPool
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sglang_hetero_spec.pool import PoolError, load_pool

MODES = ("shared", "tli", "slem", "slrs", "auto")
WORDS = ("standalone", "none", "code", "general", *MODES, "lora", "../x", "/", "", "drafters/code", "\0", "\n")
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(WORDS)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> FakePool:
    return FakePool(tmp_path_factory.mktemp("fuzz"))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path into a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


def check(pool: FakePool) -> None:
    try:
        load_pool(pool.root, target=pool.target)
    except PoolError as error:
        assert "\n" not in str(error) and str(error).endswith((".", "?"))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_at_any_place(shared: FakePool, data: st.DataObject) -> None:
    manifest = copy.deepcopy(shared.manifest)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(manifest)[1:] or [()]))
        if not path:
            break
        parent = manifest
        for part in path[:-1]:
            parent = parent[part]
        key = path[-1]
        if isinstance(parent, dict) and data.draw(st.booleans()):
            del parent[key]
            key = data.draw(st.text(max_size=8) | st.just(key))
        parent[key] = data.draw(VALUES)
    shared.manifest_path.write_text(json.dumps(manifest))
    check(shared)


FILES = (
    "pool.json",
    "router/router.json",
    "router/router.safetensors",
    "drafters/code/config.json",
    "drafters/code/tokenizer.json",
    "drafters/code/model.safetensors",
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), at=st.integers(0, 400), cut=st.integers(0, 60), put=st.binary(max_size=9))
def test_any_bytes_in_any_file(shared: FakePool, name: str, at: int, cut: int, put: bytes) -> None:
    shared.write()
    path = Path(shared.root, name)
    good = path.read_bytes()
    path.write_bytes(good[:at] + put + good[at + cut :])
    try:
        check(shared)
    finally:
        path.write_bytes(good)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> ForeignPool:
    return ForeignPool(tmp_path_factory.mktemp("foreign"), "byt5")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_in_the_tokenizer_of_a_foreign_drafter(foreign: ForeignPool, data: st.DataObject) -> None:
    """The library reads it, then we do."""
    path = foreign.folder / data.draw(st.sampled_from(["tokenizer.json", "tokenizer_config.json"]))
    good = path.read_bytes()
    parsed = json.loads(good)
    place = data.draw(st.sampled_from([place for place in places(parsed) if place and "<0x" not in str(place)]))
    parent = parsed
    for part in place[:-1]:
        parent = parent[part]
    parent[place[-1]] = data.draw(VALUES)
    foreign.entry["vocab"] = data.draw(st.sampled_from(MODES))
    foreign.write()
    path.write_text(json.dumps(parsed))
    try:
        check(foreign)
    finally:
        path.write_bytes(good)
