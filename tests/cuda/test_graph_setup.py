"""Which draft models of a pool get graphs, which do not and why, and what the log says of it."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_hetero_spec.cuda.graphs.shapes import GraphShape
from sglang_hetero_spec.pool import DrafterSpec

pytestmark = pytest.mark.usefixtures("sglang")

CHAIN = DrafterSpec("code", "standalone", None, "shared", 4, 1, 5)
TREE = DrafterSpec("words", "standalone", None, "shared", 3, 4, 9)
ADAPTER = DrafterSpec("maths", "lora", None, "shared", 2, 1, 3, base="code")


def model(backend: Any = None, ids: torch.Tensor | None = None, window: int | None = None, pruned: bool = False) -> Any:
    """Of 90 ids, whose head has 100 rows, or 40 where it was pruned."""
    from sglang.srt.layers.attention.flashinfer_backend import FlashInferAttnBackend

    from sglang_hetero_spec.worker.draft_model import PrunedHead

    weight = torch.zeros(40 if pruned else 100, 2)
    runner = SimpleNamespace(
        attn_backend=object.__new__(FlashInferAttnBackend) if backend is None else backend,
        kv_index_translator=SimpleNamespace(reads_are_translated=False),
        sliding_window_size=window,
        model=SimpleNamespace(lm_head=PrunedHead(weight) if pruned else SimpleNamespace(weight=weight)),
        model_config=SimpleNamespace(vocab_size=90),
    )
    head = SimpleNamespace(ids=ids, size=90 if ids is None else len(ids))
    return SimpleNamespace(runner=runner, head=head)


def pool(models: dict[str, Any], *drafters: DrafterSpec, merged: int | None = None) -> Any:
    return SimpleNamespace(
        by_name=models,
        pool=SimpleNamespace(drafters=drafters, merged_draft_tokens=merged),
        has_own_sequences=lambda name: False,
    )


@pytest.fixture(autouse=True)
def _one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang_hetero_spec.worker import graph_setup

    monkeypatch.setattr(graph_setup, "get_parallel", lambda: SimpleNamespace(moe_ep_size=1))


def test_shapes_are_those_of_the_drafter_and_its_adapters() -> None:
    from sglang_hetero_spec.worker.graph_setup import shapes_of

    models = pool({"code": model(), "words": model()}, CHAIN, TREE, ADAPTER)
    assert shapes_of(models, "code") == (GraphShape("window", 2), GraphShape("next", 1))
    assert shapes_of(models, "words") == (GraphShape("window", 4), GraphShape("tree", 8))
    paired = pool({"code": model()}, CHAIN, TREE, merged=12)
    assert GraphShape("window", 5) in shapes_of(paired, "code"), "four drafts of another and the root"


def test_sliding_windows_have_graphs_of_one_token_only() -> None:
    from sglang_hetero_spec.worker.graph_setup import shapes_of

    assert shapes_of(pool({"code": model(window=64)}, CHAIN), "code") == (GraphShape("next", 1),)
    assert shapes_of(pool({"words": model(window=64)}, TREE), "words") == ()


def test_why_a_model_has_none() -> None:
    from sglang_hetero_spec.worker.graph_setup import why_no_graphs

    assert why_no_graphs(model()) is None
    assert why_no_graphs(model(ids=torch.arange(40), pruned=True)) is None
    assert "cut to some ids" in (why_no_graphs(model(ids=torch.arange(40))) or "")
    assert "SimpleNamespace" in (why_no_graphs(model(backend=SimpleNamespace())) or "")
    translated = model()
    translated.runner.kv_index_translator.reads_are_translated = True
    assert "translates" in (why_no_graphs(translated) or "")


def test_logits_have_the_columns_that_the_head_leaves() -> None:
    from sglang_hetero_spec.worker.graph_setup import num_logits

    assert num_logits(model()) == 90, "rows beyond the vocabulary are padding"
    assert num_logits(model(pruned=True)) == 40


def test_a_tree_of_a_windowed_model_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    from sglang_hetero_spec.worker.graph_setup import warn_of_windowed_trees

    with caplog.at_level(logging.WARNING):
        warn_of_windowed_trees(pool({"code": model(window=64), "words": model()}, CHAIN, TREE))
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        warn_of_windowed_trees(pool({"words": model(window=64)}, TREE))
    assert "drafter words" in caplog.text and "topk to 1" in caplog.text


def test_a_model_that_has_no_room_for_graphs_drafts_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from sglang_hetero_spec.cuda.graphs import staging
    from sglang_hetero_spec.worker import graph_setup

    def room_for(model: Any, *_: Any) -> str:
        if model is full:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
        return "graphs"

    full = model()
    monkeypatch.setattr(graph_setup, "_room_for", room_for)
    monkeypatch.setattr(staging, "Staging", lambda: None)
    models = pool({"code": full, "words": model()}, CHAIN, TREE)
    with caplog.at_level(logging.WARNING):
        assert graph_setup.make_graphs(models, in_parallel=False) == {"words": "graphs"}
    assert "drafter code drafts without CUDA graphs: there is no room for them (CUDA out of memory.)" in caplog.text
