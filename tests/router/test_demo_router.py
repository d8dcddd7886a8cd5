"""The router that ships with the demo, on prompts that nothing was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sglang_hetero_spec.pool import load_pool
from sglang_hetero_spec.router.fit_wrappings import WRAPPINGS
from sglang_hetero_spec.router.route import RequestRouter

ASSETS = Path(__file__).resolve().parents[2] / "sglang_hetero_spec" / "demo" / "assets"


@pytest.fixture(scope="module")
def router() -> RequestRouter:
    return RequestRouter(load_pool(ASSETS / "pool"))


@pytest.fixture(scope="module")
def heldout() -> list[dict[str, str]]:
    return [json.loads(line) for line in (ASSETS / "heldout.jsonl").read_text(encoding="utf-8").splitlines()]


def share_right(router: RequestRouter, heldout: list[dict[str, str]], before: str = "", after: str = "") -> float:
    routes = [router.route(before + row["prompt"] + after, None, None) for row in heldout]
    right = [r.task == row["task"] and r.source == "router" for r, row in zip(routes, heldout, strict=True)]
    return sum(right) / len(right)


def test_held_out_prompts_go_to_their_drafter(router: RequestRouter, heldout: list[dict[str, str]]) -> None:
    assert len({row["task"] for row in heldout}) >= 5
    assert share_right(router, heldout) >= 0.97


def test_in_a_chat_template_too(router: RequestRouter, heldout: list[dict[str, str]]) -> None:
    for before, after in WRAPPINGS:
        assert share_right(router, heldout, before, after) >= 0.95


def test_a_prompt_of_no_task_goes_to_the_fallback(router: RequestRouter) -> None:
    for text in ("hjkl zxcvb qwrtp", "\u65e5\u672c\u8a9e \u306e \u6587", "%%% ### @@@"):
        assert router.route(text, None, None).source == "fallback"
