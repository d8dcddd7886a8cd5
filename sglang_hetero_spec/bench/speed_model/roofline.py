"""What a forward takes on an accelerator: bytes over bandwidth or operations over arithmetic, and what is beside both.

    seconds = max(bytes / bandwidth, operations / arithmetic) + layers * gap + launch + 2 * layers * all-reduce

bytes: the weights that a forward reads (all but an untied embedding, of which it reads rows) and the KV of requests;
operations: two a weight and token, and attention's four a head channel, token and token of context. Bandwidth and
arithmetic are the data sheet's times an efficiency; gap, launch and all-reduce are seconds. They are not known
exactly: each is drawn from a range (`Efficiency.draw`), and every result is an array over the draws.

Data sheets: NVIDIA H100 SXM (80 GB, 3.35 TB/s, 989 TFLOP/s bf16 dense, 1979 fp8), H100 NVL (94 GB, 3.94 TB/s, 835),
A100 PCIe (80 GB, 1.935 TB/s, 312), RTX A6000 (48 GB, 768 GB/s, 155).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Accelerator:
    """bandwidth: bytes per second; arithmetic: operations per second, dense, of `weight_bytes` 2 and of 1; memory:
    bytes. number: of them, tensor-parallel; link: bytes per second that an all-reduce moves between two of them."""

    name: str
    bandwidth: float
    arithmetic: float
    arithmetic_fp8: float | None
    memory: float
    number: int = 1
    link: float = 450e9

    def times(self, number: int) -> Accelerator:
        return replace(self, number=number)


H100 = Accelerator("H100 SXM", 3.35e12, 989e12, 1979e12, 80e9)
H100_NVL = Accelerator("H100 NVL", 3.94e12, 835e12, 1671e12, 94e9)
A100_PCIE = Accelerator("A100 80G PCIe", 1.935e12, 312e12, None, 80e9)
A6000 = Accelerator("RTX A6000", 0.768e12, 155e12, None, 48e9)


@dataclass(frozen=True)
class Shape:
    """A decoder. params: all; unread: of those, an input embedding that the LM head does not share; heads: of queries.

    weight_bytes: of a weight; KV is always two bytes a number.
    """

    name: str
    params: float
    unread: float
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    weight_bytes: int = 2

    @property
    def weights(self) -> float:
        """Bytes that every forward reads."""
        return (self.params - self.unread) * self.weight_bytes

    @property
    def kv_bytes(self) -> int:
        """Of one token of context."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim

    def operations(self, tokens: float, context: float) -> float:
        """Of `tokens`, each attending to `context` tokens."""
        attention = 4 * self.layers * self.heads * self.head_dim * context
        return tokens * (2 * (self.params - self.unread) + attention)


LLAMA_8B = Shape("Llama-3.1-8B, bf16", 8.03e9, 0.525e9, 32, 4096, 32, 8, 128)
LLAMA_70B = Shape("Llama-3.1-70B, bf16", 70.55e9, 1.05e9, 80, 8192, 64, 8, 128)
LLAMA_70B_FP8 = replace(LLAMA_70B, name="Llama-3.1-70B, fp8", weight_bytes=1)
# Shapes of drafters: of published models of about that size, with the target's vocabulary of 128,256.
DRAFTERS = {
    "0.1B": Shape("0.1B", 0.13e9, 0.0, 4, 768, 12, 12, 64),
    "0.5B": Shape("0.5B", 0.49e9, 0.0, 24, 896, 14, 2, 64),
    "1B": Shape("1B", 1.24e9, 0.0, 16, 2048, 32, 8, 64),
    "3B": Shape("3B", 3.21e9, 0.0, 28, 3072, 24, 8, 128),
}


@dataclass(frozen=True)
class Ranges:
    """(lowest, highest) of what the roofline does not know; between them every value is taken to be as likely.

    bandwidth, arithmetic: shares of the data sheet's. gap: seconds a layer beyond its bytes or operations (kernels that
    start and end, inside a CUDA graph); launch: seconds a forward (start of the graph, sampling); all_reduce: seconds
    each, two a layer; host: seconds a step that the device waits for the host; speculation: the same where it drafts
    and verifies (split, merge, accept, commit). eager_gap, eager_launch: gap and launch of
    a forward that is no CUDA graph.
    """

    bandwidth: tuple[float, float] = (0.65, 0.92)
    arithmetic: tuple[float, float] = (0.40, 0.75)
    gap: tuple[float, float] = (8e-6, 30e-6)
    launch: tuple[float, float] = (0.05e-3, 0.4e-3)
    all_reduce: tuple[float, float] = (8e-6, 25e-6)
    host: tuple[float, float] = (0.0, 0.5e-3)
    speculation: tuple[float, float] = (0.5e-3, 4e-3)
    eager_gap: tuple[float, float] = (50e-6, 150e-6)
    eager_launch: tuple[float, float] = (0.3e-3, 1.2e-3)


@dataclass(frozen=True)
class Efficiency:
    """Draws of `Ranges`, each float64 [N]."""

    bandwidth: np.ndarray
    arithmetic: np.ndarray
    gap: np.ndarray
    launch: np.ndarray
    all_reduce: np.ndarray
    host: np.ndarray
    speculation: np.ndarray
    eager_gap: np.ndarray
    eager_launch: np.ndarray

    @property
    def eager(self) -> Efficiency:
        """The same draws for forwards that Python launches kernel by kernel."""
        return replace(self, gap=self.eager_gap, launch=self.eager_launch)

    @classmethod
    def draw(cls, number: int, seed: int = 0, ranges: Ranges | None = None) -> Efficiency:
        generator = np.random.default_rng(seed)
        return cls(**{name: generator.uniform(*pair, number) for name, pair in vars(ranges or Ranges()).items()})


def forward_seconds(
    shape: Shape, where: Accelerator, tokens: float, requests: float, context: float, efficiency: Efficiency
) -> np.ndarray:
    """Seconds, [N], of one forward of `tokens` tokens of `requests` requests, each with `context` tokens before it."""
    moved = shape.weights + requests * context * shape.kv_bytes
    peak = where.arithmetic if shape.weight_bytes > 1 or where.arithmetic_fp8 is None else where.arithmetic_fp8
    memory = moved / (where.number * where.bandwidth * efficiency.bandwidth)
    arithmetic = shape.operations(tokens, context) / (where.number * peak * efficiency.arithmetic)
    seconds = np.maximum(memory, arithmetic) + shape.layers * efficiency.gap + efficiency.launch
    if where.number > 1:
        # Each of the two all-reduces of a layer moves every token's hidden state nearly twice.
        message = 2 * (where.number - 1) / where.number * tokens * shape.hidden * 2
        seconds = seconds + 2 * shape.layers * (efficiency.all_reduce + message / where.link)
    return seconds


def fits(shape: Shape, where: Accelerator, requests: float, context: float, beside: float = 0.0) -> bool:
    """Whether weights, KV and `beside` bytes leave a tenth of the memory free."""
    total = shape.params * shape.weight_bytes + requests * context * shape.kv_bytes + beside
    return total <= 0.9 * where.number * where.memory
