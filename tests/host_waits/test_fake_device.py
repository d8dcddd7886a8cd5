"""What makes the host wait is seen: otherwise the other tests here would show nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from sglang_hetero_spec.cuda.transfer import from_host
from tests.host_waits.fake_device import (
    DEVICE,
    FROM_HOST,
    SHAPE,
    SYNCHRONIZE,
    TO_HOST,
    DeviceTensor,
    held,
    no_host_waits,
    on_device,
    watched_device,
)

NUMBERS = [[3, 0, 5], [0, 7, 1]]
WAITS: dict[str, tuple[str, Callable[[torch.Tensor], object]]] = {
    "item": (TO_HOST, lambda x: x[0, 0].item()),
    "int": (TO_HOST, lambda x: int(x.max())),
    "float": (TO_HOST, lambda x: float(x.max())),
    "bool": (TO_HOST, lambda x: bool((x > 1).all())),
    "if": (TO_HOST, lambda x: 1 if x.any() else 0),
    "tolist": (TO_HOST, lambda x: x.tolist()),
    "cpu": (TO_HOST, lambda x: x.cpu()),
    "to": (TO_HOST, lambda x: x.to("cpu")),
    "to, not waited for": (TO_HOST, lambda x: x.to("cpu", non_blocking=True)),
    "copy_": (TO_HOST, lambda x: torch.zeros(2, 3, dtype=torch.int64).copy_(x)),
    "equal": (TO_HOST, lambda x: torch.equal(x, x)),
    "slice by tensor": (TO_HOST, lambda x: x[: x[0, 1]]),
    "place in a list": (TO_HOST, lambda x: list(range(9))[x[0, 0]]),
    "nonzero": (SHAPE, lambda x: x.nonzero()),
    "where alone": (SHAPE, lambda x: torch.where(x > 1)),
    "masked_select": (SHAPE, lambda x: x.masked_select(x > 1)),
    "read by mask": (SHAPE, lambda x: x[x > 1]),
    "write by mask": (SHAPE, lambda x: x.__setitem__(x > 1, x[0, :1].clone())),
    "unique": (SHAPE, lambda x: torch.unique(x)),
    "bincount": (SHAPE, lambda x: torch.bincount(x[0])),
    "repeat_interleave": (SHAPE, lambda x: x[0].repeat_interleave(x[1])),
    "tensor": (FROM_HOST, lambda x: torch.tensor([1, 2], device="cuda")),
    "as_tensor": (FROM_HOST, lambda x: torch.as_tensor(3, device="cuda")),
    "new_tensor": (FROM_HOST, lambda x: x.new_tensor([1, 2])),
    "to the device": (FROM_HOST, lambda x: torch.arange(3).to("cuda", non_blocking=True)),
    "pinned, but waited for": (FROM_HOST, lambda x: torch.arange(3).pin_memory().to("cuda")),
    "written from the host": (FROM_HOST, lambda x: x[0].copy_(torch.arange(3))),
    "put from the host": (FROM_HOST, lambda x: x.__setitem__(0, torch.arange(3))),
    "read by list": (FROM_HOST, lambda x: x[[0, 1]]),
    "read by array": (FROM_HOST, lambda x: x[np.array([0, 1])]),
    "read by places of the host": (FROM_HOST, lambda x: x[torch.tensor([0, 1])]),
    "number to places": (FROM_HOST, lambda x: x.clone().__setitem__(x[:1, 1], 3)),
    "truth to places": (FROM_HOST, lambda x: (x > 1).__setitem__(x[:1, 1], True)),
    "where, one side on the host": (FROM_HOST, lambda x: torch.where(x > 1, x, torch.tensor(3))),
    "synchronize": (SYNCHRONIZE, lambda x: torch.cuda.synchronize()),
    "of a stream": (SYNCHRONIZE, lambda x: torch.cuda.current_stream().synchronize()),
}
NO_WAITS: dict[str, Callable[[torch.Tensor], object]] = {
    "arithmetic with a number": lambda x: (x + 1) * 2,
    "arithmetic with a number of the host": lambda x: x + torch.tensor(1),
    "where, a number": lambda x: torch.where(x > 1, x, -1),
    "masked_fill": lambda x: x.masked_fill(x > 1, 0),
    "number by mask": lambda x: x.clone().__setitem__(x > 1, 0),
    "number to a slice": lambda x: x.clone().__setitem__((slice(None), slice(0, 1)), 0),
    "read by places": lambda x: x[x[:1, 1]],
    "write to places": lambda x: x.clone().__setitem__(x[:1, 1], x[1]),
    "made there": lambda x: torch.arange(3, device=x.device) + torch.full((3,), 2, device=x.device),
    "repeat_interleave, length known": lambda x: x[0].repeat_interleave(x[1], output_size=8),
    "from_host": lambda x: from_host([1, 2], x.device),
}


@pytest.mark.parametrize("name", WAITS)
def test_seen(name: str) -> None:
    kind, call = WAITS[name]
    numbers = on_device(NUMBERS)
    with watched_device() as seen:
        call(numbers)
    assert {wait.kind for wait in seen.waits} == {kind}
    assert all(wait.place.startswith("test_fake_device.<lambda>") for wait in seen.waits)
    with pytest.raises(AssertionError, match=r"the host waits for the device in test_fake_device"), no_host_waits():
        call(numbers)


@pytest.mark.parametrize("name", NO_WAITS)
def test_not_seen(name: str) -> None:
    numbers = on_device(NUMBERS)
    with no_host_waits():
        found = NO_WAITS[name](numbers)
    if found is not None:
        assert isinstance(found, DeviceTensor) and found.device == DEVICE and found.is_cuda
    assert numbers.held.tolist() == NUMBERS


def test_values_are_those_of_the_cpu() -> None:
    numbers, same = on_device(NUMBERS), torch.tensor(NUMBERS)

    def work(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[:, 1:] += x[:, :1]
        x.view(-1)[2:3].mul_(10)
        x[x[:1, 0] - 3] = x[1].clone()
        return torch.where(x > 5, x, -1).cumsum(dim=1).float().softmax(dim=-1).sort(dim=1, descending=True).values

    with no_host_waits():
        found = work(numbers)
    assert torch.equal(held(found), work(same))


def test_launches_are_counted_by_function() -> None:
    numbers = on_device(NUMBERS)
    with watched_device() as seen:
        numbers[0].unsqueeze(0).expand(2, 3)
        torch.empty(3, device=DEVICE)
        assert not seen.launches
        (numbers + 1).clamp_(max=3)
        from_host([1, 2], DEVICE)
    places = {place.rsplit(".", 1)[-1]: count for place, count in seen.launches.items()}
    assert places == {"test_launches_are_counted_by_function": 2, "from_host": 1}
    assert sum(seen.copies.values()) == 1
