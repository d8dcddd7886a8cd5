"""A draft model's own preparation of its forwards: the runner's forward is a stub that gives logits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from sglang_hetero_spec.drafters.base import DraftBatch
from sglang_hetero_spec.drafters.growing import chain_room
from sglang_hetero_spec.drafters.slots import SlotsDrafter
from sglang_hetero_spec.pool import DrafterSpec
from tests.host_waits.fake_device import DEVICE, Seen, held, on_device, watched_device
from tests.host_waits.stub_runner import StubRunner

pytestmark = pytest.mark.usefixtures("sglang")
SIZE, MAX_LEN, VOCAB, LENGTH = 8, 512, 64, 100


def draft_model(runner: StubRunner, ids: torch.Tensor | None = None) -> Any:
    from sglang_hetero_spec.worker.draft_model import Head, SGLangDraftModel, SharedState
    from sglang_hetero_spec.worker.history import TokenHistory
    from sglang_hetero_spec.worker.written_slots import WrittenSlots

    model = SGLangDraftModel(1, runner, Head(VOCAB if ids is None else len(ids), ids))
    table = torch.arange((SIZE + 1) * MAX_LEN, dtype=torch.int32, device=DEVICE).view(SIZE + 1, MAX_LEN)
    history = TokenHistory(SIZE + 1, MAX_LEN, DEVICE)
    history.tokens.copy_(table.to(torch.int64) % VOCAB)
    model.attach(SharedState(table, history, WrittenSlots([0, 1, 1], table.numel(), DEVICE)))
    return model


def batch(newcomers: bool = False, drafters: tuple[int, ...] | None = None) -> DraftBatch:
    lens = torch.full((SIZE,), LENGTH) + torch.arange(SIZE)
    return DraftBatch(
        rows=on_device(torch.arange(1, SIZE + 1)),
        seq_lens=on_device(lens),
        root_tokens=on_device(lens % VOCAB),
        seq_lens_cpu=lens,
        newcomers=tuple(range(SIZE)) if newcomers else (),
        newcomer_lens=tuple(lens.tolist()) if newcomers else (),
        drafters=drafters,
    )


def spec(topk: int) -> DrafterSpec:
    return DrafterSpec("d", "standalone", None, "shared", 3, topk, 4 if topk == 1 else 8)


def steady(drafter: SlotsDrafter, drafters: tuple[int, ...] | None) -> Seen:
    with watched_device():
        drafter.propose(batch(newcomers=True, drafters=drafters))
        drafter.propose(batch(drafters=drafters))
    with watched_device() as seen:
        drafter.propose(batch(drafters=drafters))
    return seen


@pytest.fixture(autouse=True)
def _no_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """What SGLang would ask of the server about padding."""
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch

    monkeypatch.setattr(ForwardBatch, "_init_num_token_non_padded", lambda *_, **__: None)


@pytest.mark.parametrize("drafters", [None, (1,) * 4 + (2,) * 4], ids=["alone", "with an adapter"])
@pytest.mark.parametrize("topk", [1, 2])
def test_forwards_of_a_proposal(topk: int, drafters: tuple[int, ...] | None) -> None:
    with watched_device():
        model = draft_model(StubRunner(VOCAB))
    assert chain_room(spec(topk)) < MAX_LEN - LENGTH
    seen = steady(SlotsDrafter(spec(topk), model), drafters)
    assert [str(wait) for wait in seen.waits] == []
    assert sum(seen.copies.values()) == 0


def test_prompts_are_read_with_one_wait() -> None:
    """Which slots a drafter has written is known to the device alone: one copy for all newcomers of a step."""
    with watched_device():
        model = draft_model(StubRunner(VOCAB))
    with watched_device() as seen:
        SlotsDrafter(spec(1), model).propose(batch(newcomers=True))
    assert [wait.place for wait in seen.waits] == ["written_slots.WrittenSlots.leading_run"]


def test_some_logits_of_a_head_that_cannot_be_cut() -> None:
    with watched_device():
        model = draft_model(StubRunner(VOCAB), torch.arange(0, VOCAB, 2))
    assert [str(wait) for wait in steady(SlotsDrafter(spec(1), model), None).waits] == []


# Launches of the preparation of one forward for SIZE requests; 4 to 8 us of host time each on a GPU.
MOST = {"read_window": 17, "read_next, the first of a proposal": 6, "read_next": 1, "read_tree": 19}


def test_launches() -> None:
    with watched_device():
        model = draft_model(StubRunner(VOCAB))
        now, others = batch(), iter([batch(), batch()])
        tokens, parents = on_device(torch.ones(SIZE, 4, dtype=torch.int64)), on_device([[-1, -1, 0, 1]] * SIZE)
    calls = {
        "read_window": lambda: model.read_window(now, 2),
        "read_next, the first of a proposal": lambda: model.read_next(next(others), tokens[:, 0], 1),
        "read_next": lambda: model.read_next(now, tokens[:, 0], 2),
        "read_tree": lambda: model.read_tree(now, tokens, parents),
    }
    found = {}
    for name, call in calls.items():
        with watched_device():
            call()
        with watched_device() as seen:
            call()
        ours = {place: count for place, count in seen.launches.items() if not place.startswith("stub_runner")}
        print(name, sum(ours.values()), ours)
        found[name] = sum(ours.values())
    assert found == MOST


def test_the_stub_reads_what_stands_there() -> None:
    with watched_device():
        model = draft_model(StubRunner(VOCAB))
        logits = model.read_window(batch(), 2)
    rows = torch.arange(1, SIZE + 1)
    want = (rows * MAX_LEN + LENGTH + torch.arange(SIZE)) % VOCAB
    assert torch.equal(held(logits).argmax(dim=-1), want)


def test_places_found_ahead_are_those_of_each_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond what is found at once, again for a token before, and for another batch."""
    with watched_device():
        model, asked = draft_model(StubRunner(VOCAB)), []
        monkeypatch.setattr(model, "_logits", lambda forward_batch, work: asked.append(forward_batch))
        tokens = on_device(torch.ones(SIZE, dtype=torch.int64))
        first, second = batch(), replace(batch(), seq_lens=batch().seq_lens + 7, seq_lens_cpu=batch().seq_lens_cpu + 7)
        wanted = [(one, offset) for one in (first, second, first) for offset in (1, 2, 3, 8, 9, 20, 2)]
        for one, offset in wanted:
            model.read_next(one, tokens, offset)
    rows = torch.arange(1, SIZE + 1)
    for (one, offset), forward_batch in zip(wanted, asked, strict=True):
        positions = one.seq_lens_cpu + offset
        assert torch.equal(held(forward_batch.positions), positions)
        assert torch.equal(held(forward_batch.out_cache_loc), rows * MAX_LEN + positions)
        assert torch.equal(held(forward_batch.seq_lens), positions + 1)
        assert torch.equal(forward_batch.seq_lens_cpu, positions + 1)
        assert forward_batch.seq_lens_sum == int((positions + 1).sum())
