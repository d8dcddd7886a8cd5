"""Sampling that a seed decides, on the CPU engine, where SGLang itself honours no per-request seed.

SGLang's `sampling_seed` needs --enable-deterministic-inference, whose attention backends and kernels all need a GPU.
Here, the engine is asked for greedy answers and this custom logit processor adds the chance: the largest of
logits / temperature + Gumbel noise is a sample of softmax(logits / temperature).
"""

from __future__ import annotations

import json
import pickle
from typing import Any

import torch

from sglang_hetero_spec.cpu.seeded import murmur_hash32

PARAM = "regenerate"


class SeededSampler:
    """SGLang's custom logit processor interface; noise depends on seed, place in the answer and token alone."""

    def __call__(self, logits: torch.Tensor, custom_param_list: list[dict[str, Any]]) -> torch.Tensor:
        """logits [n, vocabulary] and, for each row, `{PARAM: [seed, temperature], "__req__": request}`."""
        seeds, temperatures = zip(*(params[PARAM] for params in custom_param_list), strict=True)
        places = [len(params["__req__"].output_ids) for params in custom_param_list]
        heat = torch.tensor(temperatures, dtype=torch.float64, device=logits.device)
        return logits.double() / heat[:, None] + gumbel(
            torch.tensor(seeds, device=logits.device), torch.tensor(places, device=logits.device), logits.shape[1]
        )


def gumbel(seeds: torch.Tensor, places: torch.Tensor, width: int) -> torch.Tensor:
    """Standard Gumbel noise [n, width] in float64, for int64 `seeds` [n] and `places` [n]."""
    hashed = murmur_hash32(seeds, places, torch.arange(width, device=seeds.device))
    uniform = (hashed.double() + 0.5) / 2**32  # strictly between 0 and 1
    return -torch.log(-torch.log(uniform))


def serialized() -> str:
    """The processor as SGLang's requests carry it: by reference, the engine's processes have this package."""
    return json.dumps({"callable": pickle.dumps(SeededSampler).hex()})


def custom_params(seed: int, temperature: float) -> dict[str, Any]:
    return {PARAM: [seed, temperature]}
