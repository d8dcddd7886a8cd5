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
    ("device", "has_graphs", "has_seeds", "width"),
    [
        ("cpu", False, False, 4),
        ("cpu", True, False, 4),
        ("cuda", False, False, 4),
        ("cuda", True, False, WIDEST),
        ("cuda", False, True, WIDEST),
        ("cpu", False, True, WIDEST),
    ],
)
def test_only_graphs_and_seeds_need_one_width(
    device: str, has_graphs: bool, has_seeds: bool, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sglang_hetero_spec.worker import hetero_worker

    monkeypatch.setattr(hetero_worker, "get_spec", lambda: SimpleNamespace(speculative_num_draft_tokens=WIDEST))
    runner = SimpleNamespace(decode_cuda_graph_runner="graphs" if has_graphs else None)
    worker = SimpleNamespace(device=device, _target_worker=SimpleNamespace(model_runner=runner))
    batch = SimpleNamespace(sampling_info=SimpleNamespace(sampling_seed=torch.ones(1) if has_seeds else None))
    proposals = [proposal(0, [0], chain(torch.zeros(1, n, dtype=torch.int64), num_fed=n - 1)) for n in (4, 2)]
    assert hetero_worker.HeteroWorker._verify_width(worker, batch, proposals) == width
    if width == 4:
        assert hetero_worker.HeteroWorker._verify_width(worker, batch, []) == 1
