"""Drafters on streams of their own: when, in which order, who waits for whom, and that the proposals are the same."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch

from sglang_hetero_spec.cuda import streams
from sglang_hetero_spec.cuda.reserve import LOGIT_COPIES, DraftShape, ServerShape, reserve_rows
from sglang_hetero_spec.cuda.streams import (
    Parallel,
    Serial,
    Turns,
    draft_streams,
    drafts_in_parallel,
    plan_turns,
    refuse_streams,
    stream_bytes,
    why_not_parallel,
)
from sglang_hetero_spec.cuda.support import STREAMS_SWITCH, check_switches
from sglang_hetero_spec.errors import HeteroError


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "G")


def test_serial_until_measured(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STREAMS_SWITCH, raising=False)
    assert not drafts_in_parallel("cuda") and not drafts_in_parallel("cpu")
    monkeypatch.setattr(streams, "PARALLEL_IS_FASTER", frozenset({"G"}))
    assert drafts_in_parallel("cuda:0") and not drafts_in_parallel("cpu")
    assert not drafts_in_parallel("cuda", "there are two ranks"), "auto goes on without"
    monkeypatch.setenv(STREAMS_SWITCH, "serial")
    assert not drafts_in_parallel("cuda")


def test_what_was_asked_for_and_cannot_be_is_refused(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STREAMS_SWITCH, "parallel")
    assert drafts_in_parallel("cuda")
    assert isinstance(draft_streams("cuda", None), Parallel)
    with pytest.raises(HeteroError, match=r"is parallel, but the drafters are on the device cpu; leave it unset\."):
        drafts_in_parallel("cpu")
    with pytest.raises(HeteroError, match=r"but with --tp-size 2 collectives .* communicator; leave it unset\."):
        draft_streams("cuda", why_not_parallel(2, ["flashinfer"]))
    with pytest.raises(HeteroError, match="backend of draft models is triton"):
        draft_streams("cuda", why_not_parallel(1, ["flashinfer", "triton"]))
    assert why_not_parallel(1, ["flashinfer", "flashinfer"]) is None
    monkeypatch.setenv(STREAMS_SWITCH, "both")
    with pytest.raises(HeteroError, match="set it to auto, serial or parallel"):
        drafts_in_parallel("cuda")


def test_it_is_refused_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def cfg(**changes: object) -> SimpleNamespace:
        names = ("attention_backend", "prefill_attention_backend", "decode_attention_backend")
        made = dict.fromkeys((*names, "speculative_draft_attention_backend"))
        return SimpleNamespace(**made | {"device": "cuda", "tp_size": 1} | changes)

    monkeypatch.delenv(STREAMS_SWITCH, raising=False)
    refuse_streams(cfg(device="cpu", tp_size=4))
    monkeypatch.setenv(STREAMS_SWITCH, "parallel")
    for good in (
        {},
        {"attention_backend": "flashinfer"},
        {"attention_backend": "fa3", "speculative_draft_attention_backend": "flashinfer"},
    ):
        refuse_streams(cfg(**good))
    for bad in (
        {"tp_size": 2},
        {"device": "cpu"},
        {"decode_attention_backend": "fa3"},
        {"attention_backend": "flashinfer", "speculative_draft_attention_backend": "triton"},
    ):
        with pytest.raises(HeteroError, match=r"is parallel, but .*; leave it unset"):
            refuse_streams(cfg(**bad))
    check_switches()
    monkeypatch.setenv(STREAMS_SWITCH, "on")
    with pytest.raises(HeteroError, match=f"{STREAMS_SWITCH} is on; set it to auto, serial or parallel"):
        check_switches()


@pytest.mark.usefixtures("sglang")
def test_room_is_left_for_it_where_it_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = SimpleNamespace(device="cuda", tp_size=1), SimpleNamespace(device="cuda", tp_size=2)
    monkeypatch.delenv(STREAMS_SWITCH, raising=False)
    assert stream_bytes(one) == 0
    monkeypatch.setenv(STREAMS_SWITCH, "parallel")
    assert stream_bytes(one) == 544 << 20 and stream_bytes(two) == 0
    server = ServerShape(100, 10, 4, 5, 1, ())
    drafters = [DraftShape("a", 1000), DraftShape("b", 3000)]
    serial, parallel = (
        {row.what: row.num_bytes for row in reserve_rows(shape, drafters)}
        for shape in (server, replace(server, stream_bytes=7))
    )
    assert parallel.pop("streams of drafters") == 14
    logits = [rows.pop("logits of drafting") for rows in (serial, parallel)]
    assert logits == [ids * 4 * 4 * LOGIT_COPIES for ids in (3000, 4000)]
    assert serial == parallel


@dataclass(frozen=True)
class Fake:
    """Of a model, or of none (lane None)."""

    lane: Hashable | None
    waits: bool = False

    @property
    def together(self) -> Hashable:
        return self


A, B, C, TEXT, NGRAM, NONE = Fake("a"), Fake("b"), Fake("c"), Fake("t", waits=True), Fake(None, waits=True), Fake(None)


@pytest.mark.parametrize(
    ("drafters", "then"),
    [
        ([A], [(0, 0)]),
        ([A, B, C], [(0, 0), (1, 1), (2, 2)]),
        ([A, B, A], [(0, 0), (1, 1), (2, 0)]),
        ([B, A, A], [(0, 0), (1, 1), (2, 1)]),
        ([NGRAM, A, B], [(1, 1), (2, 2), (0, 0)]),
        ([NONE, A, B], [(0, 0), (1, 0), (2, 1)]),
        ([TEXT, A], [(1, 1), (0, 0)]),
        ([NGRAM], [(0, 0)]),
        ([], []),
    ],
    ids=str,
)
def test_who_takes_which_stream_and_turn(drafters: list[Fake], then: list[tuple[int, int]]) -> None:
    assert plan_turns(drafters, lambda drafter: True) == Turns((), tuple(then))


def test_a_first_proposal_is_made_on_the_current_stream() -> None:
    turns = plan_turns([A, NGRAM, B, C], lambda drafter: drafter is not B)
    assert turns == Turns((2,), ((0, 1), (3, 2), (1, 0)))


class Stream:
    def __init__(self, module: Recorder, name: str) -> None:
        self.module, self.name = module, name

    def wait_stream(self, other: Stream) -> None:
        self.module.log.append(f"{self.name} waits for {other.name}")


class Recorder:
    """torch.cuda, as far as it is used."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.made = 0
        self.now = Stream(self, "main")

    def Stream(self) -> Stream:
        self.made += 1
        return Stream(self, f"side{self.made}")

    def current_stream(self) -> Stream:
        return self.now

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.now = self.now, stream
        yield
        self.now = before

    def draft(self, number: int) -> int:
        self.log.append(f"{number} on {self.now.name}")
        return number


def test_all_forks_before_all_drafts_before_all_joins() -> None:
    module = Recorder()
    parallel = Parallel(module)
    assert parallel.run([A, B, C], module.draft) == [0, 1, 2]
    assert module.log == ["0 on main", "1 on main", "2 on main"], "nothing is known of them yet"
    module.log.clear()
    assert parallel.run([A, NGRAM, B], module.draft) == [0, 1, 2]
    assert module.log == [
        "side1 waits for main",
        "side2 waits for main",
        "0 on side1",
        "2 on side2",
        "1 on main",
        "main waits for side1",
        "main waits for side2",
    ]
    module.log.clear()
    assert parallel.run([C, A], module.draft) == [0, 1]
    assert module.log == ["side1 waits for main", "0 on main", "1 on side1", "main waits for side1"]
    assert module.made == 2, "streams are kept"


def test_one_model_needs_no_other_stream() -> None:
    module = Recorder()
    for drafters in ([A], [A], [], [NONE]):
        Parallel(module).run(drafters, module.draft)
    parallel = Parallel(module)
    parallel.run([A], module.draft)
    parallel.run([A, A], module.draft)
    assert module.made == 0 and not any("waits" in line for line in module.log)


def test_a_proposal_that_fails_is_joined() -> None:
    module = Recorder()
    parallel = Parallel(module)
    parallel.run([A, B], module.draft)
    module.log.clear()

    def fail(number: int) -> int:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        parallel.run([A, B], fail)
    assert module.log == ["side1 waits for main", "main waits for side1"]


@pytest.mark.usefixtures("sglang")
def test_the_workers_proposals_are_the_same() -> None:
    from benchmarks.stub_worker import WIDTH, CannedDrafter, StubSteps
    from sglang_hetero_spec.drafters.base import DraftBatch
    from sglang_hetero_spec.drafters.tree import DraftTree, chain
    from sglang_hetero_spec.worker.shares import gather_shares

    class OwnModel(CannedDrafter):
        """Ids that tell the drafter and the requests."""

        lane = property(id)  # type: ignore[assignment]

        def propose(self, batch: DraftBatch) -> DraftTree:
            names = batch.rows * 10 + int(self.spec.name[1:])
            return chain(names.unsqueeze(1).repeat(1, WIDTH), num_fed=1)

    size, module = 7, Recorder()
    steps = StubSteps(num_drafters=3, size=size)
    worker, batch = steps.worker, steps.batch()
    worker.drafters = [OwnModel(drafter.spec) for drafter in worker.drafters]
    found = []
    for way in (Serial(), Parallel(module)):
        worker._streams = way
        for _ in range(2):
            shares = worker._split(batch.reqs)
            roots = batch.spec_info.bonus_tokens.long()
            gathered = gather_shares(shares, batch.req_pool_indices, batch.seq_lens, roots, batch.seq_lens_cpu)
            drafted = worker._propose(batch, shares, gathered)
            found.append([(part.share, part.proposal.tree.tokens.tolist()) for part in drafted])
    assert found[1:] == found[:1] * 3 and len(found[0]) == 3
    assert [len(part[1]) for part in found[0]] == [3, 2, 2] and module.made == 2
