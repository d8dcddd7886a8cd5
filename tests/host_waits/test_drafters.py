"""Drafters that work on the host, or with a vocabulary of their own: how often a proposal waits, and where.

What is allowed is written down here, so that one more is red.
"""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_hetero_spec.drafters.base import DraftBatch, Drafter
from sglang_hetero_spec.drafters.ngram import NgramDrafter
from sglang_hetero_spec.drafters.none import NoneDrafter
from sglang_hetero_spec.drafters.slem import SlemDrafter
from sglang_hetero_spec.drafters.slrs import SlrsDrafter, psi_plan
from sglang_hetero_spec.drafters.text_tree import TextTree
from sglang_hetero_spec.drafters.tli import TliDrafter
from sglang_hetero_spec.pool import DrafterSpec
from tests.drafters.tiny_vocab import pairing
from tests.host_waits.fake_device import DEVICE, Seen, on_device, watched_device
from tests.host_waits.stub_runner import StubRunner

pytestmark = pytest.mark.usefixtures("sglang")
SIZE, LENGTH, NUM_STEPS = 4, 40, 3
RIDS = tuple(f"r{number}" for number in range(SIZE))

COMMITTED = "committed._to_host"
# A wait that is allowed, by kind of drafter: where, and how often in a step.
ALLOWED: dict[str, dict[str, int]] = {
    "none": {},
    # Looks up what was committed, on the host.
    "ngram": {COMMITTED: 1},
    # Reads what was committed as its own tokens, a table on the host. With it come the drafts of its last proposal.
    "tli": {COMMITTED: 1},
    # Reads committed text; writes the last committed piece again, whose tokens are chosen among those that can begin
    # there (drafters.opening), one look for each of them, here one; reads the text that it drafted.
    "slem": {COMMITTED: 1, "opening.Chooser.choose": 1, "slem.SlemDrafter._write_on": 1},
    # Reads each target token that it drew as its own tokens before it draws the next one.
    "slrs": {COMMITTED: 1, "slrs.SlrsDrafter.draft": NUM_STEPS},
}


@pytest.fixture(autouse=True)
def _no_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch

    monkeypatch.setattr(ForwardBatch, "_init_num_token_non_padded", lambda *_, **__: None)


def own_sequences(history: Any, size: int, ids: torch.Tensor | None = None) -> Any:
    from sglang_hetero_spec.worker.draft_model import Head, SGLangDraftModel
    from sglang_hetero_spec.worker.own_sequences import OwnSequences

    runner: Any = StubRunner(size)
    runner.page_size = 1
    runner.token_to_kv_pool = SimpleNamespace(size=8192)
    runner.req_to_token_pool = SimpleNamespace(req_to_token=torch.zeros(16, 512, dtype=torch.int32, device=DEVICE))
    sequences = OwnSequences(SGLangDraftModel(0, runner, Head(size if ids is None else len(ids), ids)))
    sequences.attach(history)
    return sequences


def made(kind: str, history: Any) -> Drafter:
    from sglang_hetero_spec.worker.committed import CommittedTokens

    vocab = "shared" if kind in ("ngram", "none") else kind
    topk, width = 1, NUM_STEPS + 1
    spec = DrafterSpec("d", "ngram" if kind == "ngram" else "standalone", None, vocab, NUM_STEPS, topk, width)
    if kind == "none":
        return NoneDrafter(spec)
    if kind == "ngram":
        reader = CommittedTokens()
        reader.attach(history)
        return NgramDrafter(DrafterSpec("d", "ngram", None, vocab, NUM_STEPS, topk, width, capacity=1000), reader, 8)
    sides = pairing("partial" if kind != "slrs" else "ambiguous")
    size = len(sides.draft.table)
    if kind == "tli":
        ids = torch.from_numpy(sides.shared.draft_ids.astype("int64"))
        return TliDrafter(spec, own_sequences(history, size, ids), sides, DEVICE)
    if kind == "slem":
        return SlemDrafter(spec, own_sequences(history, size), sides)
    tree = TextTree(psi_plan(sides), len(sides.target.table), DEVICE)
    return SlrsDrafter(spec, own_sequences(history, size), sides, tree)


def batch(length: int, is_new: bool) -> DraftBatch:
    lens = torch.full((SIZE,), length)
    return DraftBatch(
        rows=on_device(torch.arange(SIZE)),
        seq_lens=on_device(lens),
        root_tokens=on_device(torch.ones(SIZE, dtype=torch.int64)),
        seq_lens_cpu=lens,
        newcomers=tuple(range(SIZE)) if is_new else (),
        newcomer_lens=(length,) * SIZE if is_new else (),
        rids=RIDS,
    )


def steady(kind: str) -> Seen:
    """The fourth proposal; every step commits two tokens."""
    from sglang_hetero_spec.worker.history import TokenHistory

    with watched_device():
        history = TokenHistory(SIZE, 256, DEVICE)
        history.tokens.copy_(torch.arange(256, device=DEVICE) % 2 + 1)
        drafter = made(kind, history)
        for rid in RIDS:
            drafter.admit(rid)
        for step in range(3):
            drafter.propose(batch(LENGTH + 2 * step, is_new=step == 0))
    with watched_device() as seen:
        drafter.propose(batch(LENGTH + 6, is_new=False))
    return seen


@pytest.mark.parametrize("kind", ALLOWED)
def test_waits_of_a_proposal(kind: str) -> None:
    seen = steady(kind)
    assert Counter(wait.place for wait in seen.waits) == ALLOWED[kind], list(map(str, seen.waits))
    assert {wait.kind for wait in seen.waits} <= {"copy to the host"}
