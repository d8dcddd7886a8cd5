"""`hetero-spec route` and the router's part of `inspect`, with a router that was really fitted."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from fake_pool import FakePool, write_weights

Run = Callable[..., Any]


def test_each_prompt_gets_its_tasks_drafter(hetero_spec: Run, routed_pool: FakePool) -> None:
    routed_pool.manifest["router"]["min_confidence"] = 0.0
    routed_pool.write()
    ran = hetero_spec("route", routed_pool.root, "def add(a, b): 7", "Good morning, dear 9", "--json")
    assert (ran.code, ran.err) == (0, "")
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert [(row["task"], row["drafter"], row["source"]) for row in rows] == [
        ("code", "code", "router"),
        ("chat", "off", "router"),
    ]
    assert all(0 < row["confidence"] <= 1 and row["microseconds"] > 0 for row in rows)


def test_below_the_threshold_the_fallback_serves(hetero_spec: Run, routed_pool: FakePool) -> None:
    routed_pool.manifest["router"]["min_confidence"] = 1.0
    routed_pool.write()
    row = json.loads(hetero_spec("route", routed_pool.root, "def add(a, b): 7", "--json").out)
    assert (row["task"], row["drafter"], row["source"]) == ("code", "general", "fallback")


def test_without_a_router_the_fallback_serves(hetero_spec: Run, pool: FakePool) -> None:
    row = json.loads(hetero_spec("route", pool.root, "anything", "--json").out)
    assert (row["task"], row["drafter"], row["confidence"]) == (None, "general", None)
    assert "general" in hetero_spec("route", pool.root, "anything").out


def test_the_table_shows_odd_prompts_as_they_are(hetero_spec: Run, routed_pool: FakePool) -> None:
    ran = hetero_spec("route", routed_pool.root, "", "[red]x[/red]\n\x1b[2J", "x" * 10_000, "\u65e5\u672c")
    assert ran.code == 0 and "[red]x[/red]" in ran.out
    assert "\x1b" not in ran.out and "x..." in ran.out


def test_prompts_from_standard_input(hetero_spec: Run, routed_pool: FakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"one\ntwo\n")))
    ran = hetero_spec("route", routed_pool.root, "zero", "--file", "-", "--json")
    assert [json.loads(line)["prompt"] for line in ran.out.splitlines()] == ["zero", "one", "two"]


@pytest.mark.parametrize("command", [("inspect",), ("route", "x")])
def test_a_router_that_only_its_loader_finds_bad(
    hetero_spec: Run, routed_pool: FakePool, command: tuple[str, ...]
) -> None:
    """Its files look right to `load_pool`: the weights are of another shape."""
    write_weights(routed_pool.root / "router" / "router.safetensors")
    ran = hetero_spec(command[0], routed_pool.root, *command[1:])
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("hetero-spec: ") and "router.safetensors" in ran.err and ran.err.count("\n") == 1


def test_inspect_shows_the_router(hetero_spec: Run, routed_pool: FakePool) -> None:
    assert "Router: 2 tasks; below a confidence of 0.5 general serves." in hetero_spec("inspect", routed_pool.root).out
    found = json.loads(hetero_spec("inspect", routed_pool.root, "--json").out)
    assert found["router"] == {
        "path": str(routed_pool.root / "router"),
        "min_confidence": 0.5,
        "second_below": None,
    }
