"""The worker that benchmarks/ times without models does what the real one does: it would be quick otherwise, too."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("sglang")


@pytest.mark.parametrize(("num_drafters", "size"), [(1, 1), (4, 8), (8, 9)])
def test_a_step_of_the_stub_worker(num_drafters: int, size: int) -> None:
    from benchmarks.stub_worker import CONTEXT, WIDTH, decode_steps

    step = decode_steps(num_drafters, size)
    for number in range(3):
        result = step()
        lens = [CONTEXT + number + request for request in range(size)]
        assert result.hetero.drafters == [(request % num_drafters,) for request in range(size)]
        assert result.cap_lens.tolist() == [WIDTH] * size
        assert set(result.hetero.seconds.draft) == set(range(num_drafters))
        assert result.accept_lens.tolist() == [1 + length % WIDTH for length in lens]
        assert result.new_seq_lens.tolist() == [length + 1 + length % WIDTH for length in lens]
