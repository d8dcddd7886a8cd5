"""One CPU op in two or three forms that do the same work: ours, a loop over requests, and plain Python as reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

# What a form returns is compared between the forms: tests/benchmarks/test_cpu_ops.py.
Form = Callable[[], object]


@dataclass(frozen=True)
class Forms:
    """ours: the op. loop: the simplest PyTorch way, requests one by one. reference: tests/cpu/reference.py or plain
    Python over tokens and heads, where it ends within seconds; it is for exactness, not for speed."""

    ours: Form
    loop: Form
    reference: Form | None = None


@dataclass(frozen=True)
class Case:
    """name: of the op and what it is given. make: Forms for a number of requests and a context length in tokens.

    by_length: whether the context's length changes the work; where not, one length is enough.
    """

    name: str
    make: Callable[[int, int], Forms]
    by_length: bool = False


def lengths_of(size: int, length: int) -> torch.Tensor:
    """int64 [size], committed tokens of each request: from half of `length` to all of it, the same in each process."""
    generator = torch.Generator().manual_seed(size + length)
    return torch.randint(length // 2, length + 1, (size,), generator=generator)
