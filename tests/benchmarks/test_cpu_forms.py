"""The forms that benchmarks/ times do the same work: a ratio between different results would mean nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from benchmarks.cpu_ops import CASES, Case
from tests.support.threads import one_thread


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def kept(result: object) -> list[torch.Tensor]:
    """Outputs are written in place, so another form may write them again."""
    tensors = [result] if isinstance(result, torch.Tensor) else result
    return [tensor.clone() for tensor in tensors]


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_all_forms_give_the_same(case: Case, size: int) -> None:
    # Some forms change what they are given, so each starts from the same state.
    results = [kept(getattr(case.make(size, 24), form)()) for form in ("ours", "loop")]
    forms = case.make(size, 24)
    if forms.reference is not None:
        results.append(kept(forms.reference()))
    for other in results[1:]:
        for mine, theirs in zip(results[0], other, strict=True):
            assert mine.shape == theirs.shape
            torch.testing.assert_close(mine, theirs, check_dtype=False, atol=1e-5, rtol=1e-5)


def test_every_op_of_the_cpu_engine_has_a_case() -> None:
    from sglang_hetero_spec.cpu import ops

    described = " ".join(f"{case.name} {case.make.__doc__}" for case in CASES)
    named = {function.__name__ for function in ops.PYTHON_NAMES.values()} | {"murmur_hash32", "filter_probs"}
    assert [name for name in sorted(named) if f"`{name}`" not in described] == []
