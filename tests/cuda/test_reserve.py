"""Memory that is kept free for a pool: every part of it, by hand, and where SGLang asks for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from sglang_hetero_spec.cuda.graphs.ladder import MOST_SIZES
from sglang_hetero_spec.cuda.reserve import (
    GRAPH_BYTES,
    MIB,
    WRAPPER_BYTES,
    DraftShape,
    ServerShape,
    reserve_bytes,
    reserve_rows,
)

SERVER = ServerShape(
    vocab_size=1000, context_len=4096, max_requests=10, width=8, page_size=16, graph_sizes=(1, 2, 4, 8)
)
DRAFTERS = [DraftShape("code", 1000), DraftShape("maths", 600)]


def rows(server: ServerShape, drafters: list[DraftShape]) -> dict[str, int]:
    return {row.what: row.num_bytes for row in reserve_rows(server, drafters)}


def test_every_part_by_hand() -> None:
    assert rows(SERVER, DRAFTERS) == {
        "attention plans of drafters": 2 * 4 * (8 * MIB + 131072),
        "logits of drafting": 10 * 1000 * 4 * 5,
        "logits of verification": 10 * 8 * 1000 * 4 * 5,
        "laws of drawn drafts": 10 * 8 * 1000 * 4,
        "committed tokens": 10 * 4096 * 8,
    }
    parts = rows(replace(SERVER, in_parts=True), DRAFTERS)["verification in two parts"]
    assert parts == (4 + 2) * WRAPPER_BYTES + 8 * (256 + 1) * 4 + 10 * 64
    graphs = rows(replace(SERVER, draft_graphs=5), DRAFTERS)
    assert graphs["graphs of drafters"] == 5 * 2 * (WRAPPER_BYTES + GRAPH_BYTES)
    assert graphs["page indices and masks of drafters' graphs"] == 2 * 11 * 4096 * 5
    assert graphs["logits of drafters' graphs"] == (1000 + 600) * 10 * 4


def test_a_drafter_more_needs_more_and_a_window_doubles_its_plans() -> None:
    more = [*DRAFTERS, DraftShape("words", 2000)]
    assert reserve_bytes(SERVER, more) - reserve_bytes(SERVER, DRAFTERS) == 4 * WRAPPER_BYTES + 10 * 1000 * 4 * 5
    windowed = rows(replace(SERVER, layer_kinds=2), DRAFTERS)["attention plans of drafters"]
    assert windowed == 2 * rows(SERVER, DRAFTERS)["attention plans of drafters"]


def test_a_pool_without_models_needs_no_plans() -> None:
    assert "attention plans of drafters" not in rows(SERVER, [])
    assert rows(SERVER, [])["logits of verification"] > 0


# Where SGLang asks.


def write_pool(root: Path) -> None:
    drafters = [
        {"name": "code", "kind": "standalone", "path": "drafters/code", "num_steps": 4, "num_draft_tokens": 5},
        {"name": "memory", "kind": "ngram", "num_steps": 11, "num_draft_tokens": 12},
        {"name": "off", "kind": "none"},
    ]
    manifest = {"format": "sglang_hetero_spec.pool", "schema_version": 1, "drafters": drafters}
    (root / "drafters" / "code").mkdir(parents=True)
    (root / "drafters" / "code" / "config.json").write_text(json.dumps({"vocab_size": 333}))
    (root / "pool.json").write_text(json.dumps(manifest | {"fallback_drafter": "code"}))


@pytest.fixture
def arguments(tmp_path: Path, sglang: None, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    from sglang.srt.arg_groups import model_override_base

    write_pool(tmp_path)
    text = SimpleNamespace(sliding_window=None)
    config = SimpleNamespace(vocab_size=500, context_len=2048, hf_text_config=text)
    monkeypatch.setattr(model_override_base, "model_config_of", lambda cfg: config)
    decode = SimpleNamespace(bs=[1, 2, 4, 64], backend="full")
    return SimpleNamespace(
        speculative_algorithm="HETERO",
        speculative_draft_model_path=str(tmp_path),
        device="cuda",
        tp_size=1,
        max_running_requests=None,
        page_size=16,
        cuda_graph_config=SimpleNamespace(decode=decode),
        config=config,
    )


def added(arguments: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> float:
    from sglang.srt.arg_groups import overrides

    from sglang_hetero_spec.cuda.hooks import leave_room

    monkeypatch.setattr(overrides, "resolving_view", lambda server_args: server_args)
    return leave_room(100.0, arguments) - 100.0


def test_the_pool_is_counted(arguments: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = ServerShape(
        vocab_size=500,
        context_len=2048,
        max_requests=48,
        width=12,
        page_size=16,
        graph_sizes=(1, 2, 4),
        draft_graphs=2 * MOST_SIZES,
    )
    assert added(arguments, monkeypatch) * MIB == pytest.approx(reserve_bytes(shape, [DraftShape("code", 333)]))
    arguments.config.hf_text_config.sliding_window = 512
    shape = replace(shape, layer_kinds=2, in_parts=True)
    assert added(arguments, monkeypatch) * MIB == pytest.approx(reserve_bytes(shape, [DraftShape("code", 333)]))


def test_trees_and_pairs_need_more_for_their_graphs() -> None:
    server = replace(SERVER, draft_graphs=12)
    plain, tree = DraftShape("code", 1000), DraftShape("code", 1000, tree_width=12, num_backends=2)
    before, after = rows(server, [plain]), rows(server, [tree])
    assert after["logits of drafters' graphs"] == 12 * before["logits of drafters' graphs"]
    indices = "page indices and masks of drafters' graphs"
    assert after[indices] == 3 * before[indices], "two for 12 nodes, one for the other width"
    assert after["attention plans of drafters"] == 2 * before["attention plans of drafters"]


def test_graphs_that_are_off_need_no_room(arguments: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    with_graphs = added(arguments, monkeypatch)
    monkeypatch.setenv("SGLANG_HETERO_SPEC_DRAFT_GRAPHS", "off")
    without = added(arguments, monkeypatch)
    monkeypatch.delenv("SGLANG_HETERO_SPEC_DRAFT_GRAPHS")
    arguments.cuda_graph_config.decode.backend = "disabled"
    assert added(arguments, monkeypatch) == without < with_graphs


@pytest.mark.parametrize(
    "other",
    [{"speculative_algorithm": "EAGLE"}, {"device": "cpu"}, {"speculative_draft_model_path": "/nowhere"}],
    ids=["another algorithm", "no GPU", "a pool that will be refused"],
)
def test_nothing_is_added_elsewhere(
    arguments: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, other: dict[str, str]
) -> None:
    arguments.__dict__.update(other)
    assert added(arguments, monkeypatch) == 0.0


def test_sglang_asks_only_where_the_fraction_was_left_open(sglang: None) -> None:
    """`reserve_for_graph_mb` is what leave_room is behind; a fraction that the user gave must stay."""
    import inspect

    from sglang.srt.arg_groups import memory_hook

    lines = inspect.getsource(memory_hook.handle_gpu_memory_settings).splitlines()
    indents = [len(line) - len(line.lstrip()) for line in lines]
    asked = next(place for place, line in enumerate(lines) if "reserve_for_graph_mb(server_args)" in line)
    opened = next(place for place, line in enumerate(lines) if "if cfg.mem_fraction_static is None" in line)
    assert opened < asked
    assert all(indents[place] > indents[opened] for place in range(opened + 1, asked) if lines[place].strip())
