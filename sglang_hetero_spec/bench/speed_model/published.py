"""The roofline beside what others have published (/work/shared/FIELD.md names the sources)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sglang_hetero_spec.bench.speed_model.roofline import (
    A100_PCIE,
    A6000,
    DRAFTERS,
    H100,
    H100_NVL,
    LLAMA_8B,
    Accelerator,
    Efficiency,
    Shape,
    forward_seconds,
)

CONTEXT = 512  # tokens, about the middle of an answer in these workloads; its KV is a hundredth of the weights
DRAWS = 4000


@dataclass(frozen=True)
class Published:
    """drafter, accept_length, steps: of one draft model for all; None and 1 without speculation."""

    source: str
    where: Accelerator
    requests: int
    tokens_per_second: float
    drafter: Shape | None = None
    accept_length: float = 1.0
    steps: int = 0


_EAGLE3 = "EAGLE-3 paper, SGLang 0.4.4, Llama-3.1-8B, MT-Bench"
_TLI = "SGLang PR 22883, Llama-3.1-8B, speed_bench_mixed"
_HALF = DRAFTERS["0.5B"]
FIGURES = (
    Published(_EAGLE3, H100, 1, 158.34),
    Published(_TLI, H100_NVL, 8, 1226),
    Published(_TLI, H100_NVL, 8, 2021, _HALF, 4.21, 5),
    Published(_TLI, A100_PCIE, 8, 666),
    Published(_TLI, A100_PCIE, 8, 1124, _HALF, 4.09, 5),
    Published(_TLI, A6000, 8, 410),
    Published(_TLI, A6000, 8, 909, _HALF, 3.81, 5),
)


def speeds(figure: Published, efficiency: Efficiency) -> np.ndarray:
    """Tokens per second, [N], of the whole batch, prefill left out."""
    width, requests = figure.steps + 1, figure.requests
    step = forward_seconds(LLAMA_8B, figure.where, requests * width, requests, CONTEXT, efficiency)
    if figure.drafter is None:
        return requests / (step + efficiency.host)
    # SGLang's STANDALONE has one more draft forward a step: over what was accepted.
    draft = (figure.steps + 1) * forward_seconds(figure.drafter, figure.where, requests, requests, CONTEXT, efficiency)
    return requests * figure.accept_length / (step + draft + efficiency.speculation)


def compared() -> list[dict[str, object]]:
    """A row for each figure: what the model says (5, 50, 95% of its draws) and whether the published one is inside."""
    rows = []
    efficiency = Efficiency.draw(DRAWS)
    for figure in FIGURES:
        low, middle, high = np.quantile(speeds(figure, efficiency), (0.05, 0.5, 0.95))
        rows.append(
            {
                "source": figure.source,
                "where": figure.where.name,
                "requests": figure.requests,
                "drafter": None if figure.drafter is None else figure.drafter.name,
                "accept_length": figure.accept_length,
                "published": figure.tokens_per_second,
                "low": float(low),
                "middle": float(middle),
                "high": float(high),
                "inside": bool(low <= figure.tokens_per_second <= high),
            }
        )
    return rows
