"""Draft models on SGLang's FlashInfer backend, without graphs.

Runs under TRITON_INTERPRET=1 (test_on_cpu.py starts it).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.flashinfer_on_cpu.compiled import LOG
from tests.flashinfer_on_cpu.world import Drafting, World, close, write_model

BATCHES = [[1], [3, 40, 17, 1], [0, 5, 130, 31, 16, 64]]


@pytest.fixture(scope="module", params=[("gqa", 1), ("mha", 16), ("window", 16)], ids=str)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    kind, page_size = request.param
    return World.make(write_model(kind, tmp_path_factory.mktemp("models")), page_size)


@pytest.fixture(params=[False, True], ids=["decode", "tensor cores"])
def _cores(request: pytest.FixtureRequest, world: World) -> Iterator[None]:
    """The two ways in which FlashInfer decodes."""
    from sglang.srt.layers.attention.flashinfer_backend import FlashInferAttnBackend

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGLANG_FLASHINFER_USE_TENSOR_CORE", str(request.param))
        world.use(FlashInferAttnBackend)
        yield


@pytest.mark.usefixtures("_cores")
@pytest.mark.parametrize("lens", BATCHES, ids=str)
@pytest.mark.parametrize("window", [1, 2, 20])
def test_a_chain(world: World, lens: list[int], window: int) -> None:
    drafting = Drafting(world, lens)
    batch = drafting.batch()
    drafting.model.catch_up(batch, window)
    logits = drafting.model.read_window(batch, window)
    drafting.check_chain(batch, logits, 3)


@pytest.mark.parametrize("lens", BATCHES, ids=str)
@pytest.mark.parametrize("width", [1, 15])
def test_a_tree(world: World, lens: list[int], width: int) -> None:
    if world.runner.sliding_window_size is not None:
        pytest.skip("SGLang's verification with a window reads the wrong end of the context (attn_backend.py)")
    drafting = Drafting(world, lens)
    batch = drafting.batch()
    drafting.model.catch_up(batch, 3)
    drafting.model.read_window(batch, 3)
    drafting.check_tree(batch, width)


@pytest.mark.parametrize("most", [7, 64])
def test_prompts_are_read_in_parts(world: World, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang_hetero_spec.worker import draft_model

    monkeypatch.setattr(draft_model, "CATCH_UP_TOKENS", most)
    LOG.clear()
    drafting = Drafting(world, [70, 3, 25])
    batch = drafting.batch()
    drafting.model.catch_up(batch, 2)
    assert len(LOG.kinds) > 98 // most, "several forwards"
    close(drafting.model.read_window(batch, 2), drafting.expected([[], [], []]))


def test_what_was_read_is_not_read_again(world: World) -> None:
    drafting = Drafting(world, [70, 3, 25])
    drafting.model.catch_up(drafting.batch(), 2)
    drafting.lens = [90, 20, 25]
    batch = drafting.batch()
    drafting.model.catch_up(batch, 2)
    close(drafting.model.read_window(batch, 2), drafting.expected([[], [], []]))
