"""How wide the merged tree of a step is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sglang_hetero_spec.drafters.tree import chain
from tests.worker.proposals import proposal

pytestmark = pytest.mark.usefixtures("sglang")
WIDEST = 12


@pytest.mark.parametrize(
    ("device", "backend", "has_graphs", "has_seeds", "width"),
    [
        ("cpu", "intel_amx", False, False, 4),
        ("cpu", "intel_amx", True, False, 4),
        ("cuda", "flashinfer", False, False, 4),
        ("cuda", "flashinfer", True, False, WIDEST),
        ("cuda", "fa3", False, False, WIDEST),
        ("cuda", "flashinfer", False, True, WIDEST),
        ("cpu", "intel_amx", False, True, WIDEST),
    ],
)
def test_graphs_seeds_and_other_attention_backends_need_one_width(
    device: str, backend: str, has_graphs: bool, has_seeds: bool, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sglang.srt.layers.attention.flashinfer_backend import FlashInferAttnBackend

    from sglang_hetero_spec.worker import hetero_worker

    monkeypatch.setattr(hetero_worker, "get_spec", lambda: SimpleNamespace(speculative_num_draft_tokens=WIDEST))
    attention = object.__new__(FlashInferAttnBackend) if backend == "flashinfer" else backend
    runner = SimpleNamespace(attn_backend=attention, decode_cuda_graph_runner="graphs" if has_graphs else None)
    worker = SimpleNamespace(device=device, _target_worker=SimpleNamespace(model_runner=runner), _verify_widths=None)
    batch = SimpleNamespace(sampling_info=SimpleNamespace(sampling_seed=torch.ones(1) if has_seeds else None))
    proposals = [proposal(0, [0], chain(torch.zeros(1, n, dtype=torch.int64), num_fed=n - 1)) for n in (4, 2)]
    assert hetero_worker.HeteroWorker._verify_width(worker, batch, proposals) == width
    if width == 4:
        assert hetero_worker.HeteroWorker._verify_width(worker, batch, []) == 1


def test_of_several_captured_widths_the_narrowest_that_holds_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang_hetero_spec.cuda.graphs.verify_widths import Verification, VerifyWidths
    from sglang_hetero_spec.worker import hetero_worker

    monkeypatch.setattr(hetero_worker, "get_spec", lambda: SimpleNamespace(speculative_num_draft_tokens=WIDEST))
    runner = SimpleNamespace(attn_backend="own", decode_cuda_graph_runner="own graphs")
    captured = VerifyWidths(
        runner, {width: Verification(f"backend {width}", SimpleNamespace(max_bs=2)) for width in (WIDEST, 1, 5)}
    )
    worker = SimpleNamespace(device="cuda", _verify_widths=captured)

    def width(needed: int | None, batch_size: int = 2, seed: torch.Tensor | None = None) -> int:
        sampling = SimpleNamespace(sampling_seed=seed)
        batch = SimpleNamespace(reqs=[None] * batch_size, sampling_info=sampling)
        proposals = []
        if needed is not None:
            tree = chain(torch.zeros(1, needed, dtype=torch.int64), num_fed=needed - 1)
            proposals = [proposal(0, [0], tree)]
        return hetero_worker.HeteroWorker._verify_width(worker, batch, proposals)

    assert [width(needed) for needed in (None, 1, 2, 5, 6, WIDEST)] == [1, 1, 5, 5, WIDEST, WIDEST]
    assert width(2, batch_size=3) == WIDEST, "no graph holds so many: any width would do"
    assert width(2, seed=torch.ones(1)) == WIDEST, "coins are numbered by the width"

    with pytest.raises(RuntimeError), captured.at(5):
        assert runner.attn_backend == "backend 5" and runner.decode_cuda_graph_runner.max_bs == 2
        raise RuntimeError("a fault in between")
    assert (runner.attn_backend, runner.decode_cuda_graph_runner) == ("own", "own graphs")


def test_widths_that_are_worth_a_capture() -> None:
    from sglang_hetero_spec.cuda.graphs.verify_widths import wanted_widths

    assert wanted_widths([5, 5, 16], 16, 1) == ()
    assert wanted_widths([5, 5, 16], 16, 2) == (5,)
    assert wanted_widths([5, 5, 16], 16, 9) == (1, 5)
    assert wanted_widths([5, 5], 5, 9) == (1,)


@pytest.mark.parametrize(("value", "number"), [("", 1), ("3", 3)])
def test_how_many_widths_are_asked_for(value: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang_hetero_spec.cuda.support import WIDTHS_SWITCH, num_verify_widths

    monkeypatch.setenv(WIDTHS_SWITCH, value)
    assert num_verify_widths() == number


@pytest.mark.parametrize("value", ["0", "-1", "few", "1.5"])
def test_another_value_is_refused_by_name(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang_hetero_spec.cuda.support import WIDTHS_SWITCH, num_verify_widths
    from sglang_hetero_spec.errors import HeteroError

    monkeypatch.setenv(WIDTHS_SWITCH, value)
    with pytest.raises(HeteroError, match=f"{WIDTHS_SWITCH} is {value}"):
        num_verify_widths()
