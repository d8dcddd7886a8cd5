"""The exact law of what a small model samples, computed by transformers, and whether samples follow it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from scipy import stats
from transformers import LlamaForCausalLM

Tokens = tuple[int, ...]

# What is rarer than this is not told apart.
RAREST = 1e-5
FEWEST_EXPECTED = 10


@dataclass(frozen=True)
class Params:
    """Sampling parameters of a request, as in SGLang's API."""

    temperature: float = 1.0
    top_k: int = -1
    top_p: float = 1.0
    min_p: float = 0.0

    def filtered(self, logits: torch.Tensor) -> torch.Tensor:
        """What is sampled from, float64 [n, V]; logits: [n, V]. Top-p and min-p look at the distribution before any
        filter, as SGLang's PyTorch sampler does."""
        if self.temperature == 0:
            return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).double()
        probs = (logits.double() / self.temperature).softmax(-1)
        weights, tokens = probs.sort(dim=-1, descending=True)
        before = weights.cumsum(-1) - weights
        ranks = torch.arange(weights.shape[-1])
        kept = (before <= self.top_p) & (weights >= weights[:, :1] * self.min_p)
        if self.top_k > 0:
            kept &= ranks < self.top_k
        weights = weights * kept
        return torch.zeros_like(probs).scatter_(1, tokens, weights / weights.sum(-1, keepdim=True))


class ExactModel:
    """P(continuation of a prompt), by the model at `path`."""

    def __init__(self, path: Path, prompt: list[int]) -> None:
        self._model = LlamaForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self._prompt = prompt

    def law(self, params: Params, length: int) -> dict[Tokens, float]:
        """Continuations of `length` tokens; a shorter entry is all rare ones of that beginning together."""
        rare: dict[Tokens, float] = {}
        level: dict[Tokens, float] = {(): 1.0}
        for _ in range(length):
            longer: dict[Tokens, float] = {}
            for prefix, row in zip(level, params.filtered(self._logits(list(level))), strict=True):
                joint = row * level[prefix]
                common = joint >= RAREST
                longer |= {(*prefix, token): joint[token].item() for token in common.nonzero().flatten().tolist()}
                rest = joint[~common].sum().item()
                if rest > 0:
                    rare[prefix] = rest
            level = longer
        return rare | level

    @torch.no_grad()
    def _logits(self, prefixes: list[Tokens]) -> torch.Tensor:
        inputs = torch.tensor([[*self._prompt, *prefix] for prefix in prefixes])
        parts = [self._model(part, logits_to_keep=1).logits[:, -1] for part in inputs.split(512)]
        return torch.cat(parts)


class Cells:
    """A partition of all continuations in which every cell is expected FEWEST_EXPECTED times in `num_samples`.

    A cell is a beginning that is not in a longer cell; what is too rare joins the cell of its shorter beginning.
    """

    def __init__(self, law: dict[Tokens, float], num_samples: int) -> None:
        self.probabilities: dict[Tokens, float] = dict(law)
        for length in range(max(map(len, law)), 0, -1):
            for tokens in [t for t in self.probabilities if len(t) == length]:
                if self.probabilities[tokens] * num_samples < FEWEST_EXPECTED:
                    rest = self.probabilities.pop(tokens)
                    self.probabilities[tokens[:-1]] = self.probabilities.get(tokens[:-1], 0.0) + rest
        rest = self.probabilities.pop((), 0.0)
        # Where what is left goes to, in mass and in samples.
        self._last: Tokens = ()
        if rest * num_samples >= FEWEST_EXPECTED:
            self.probabilities[()] = rest
        else:
            self._last = min(self.probabilities, key=self.probabilities.__getitem__)
            self.probabilities[self._last] += rest

    def counts(self, samples: list[Tokens]) -> list[int]:
        found = Counter(self._cell(tokens) for tokens in samples)
        return [found[cell] for cell in self.probabilities]

    def _cell(self, tokens: Tokens) -> Tokens:
        lengths = range(len(tokens), 0, -1)
        return next((tokens[:n] for n in lengths if tokens[:n] in self.probabilities), self._last)


@dataclass(frozen=True)
class ChiSquared:
    statistic: float
    freedom: int

    def __add__(self, other: ChiSquared) -> ChiSquared:
        return ChiSquared(self.statistic + other.statistic, self.freedom + other.freedom)

    @property
    def p(self) -> float:
        return float(stats.chi2.sf(self.statistic, self.freedom)) if self.freedom else 1.0


NOTHING = ChiSquared(0.0, 0)


def against_law(samples: list[Tokens], law: dict[Tokens, float]) -> ChiSquared:
    """One sample. Infinite where something was sampled that cannot be."""
    cells = Cells(law, len(samples))
    if any(not any(tokens[:n] in law for n in range(len(tokens) + 1)) for tokens in samples):
        return ChiSquared(float("inf"), len(cells.probabilities))
    statistic = sum(
        (count - len(samples) * p) ** 2 / (len(samples) * p)
        for count, p in zip(cells.counts(samples), cells.probabilities.values(), strict=True)
    )
    return ChiSquared(statistic, len(cells.probabilities) - 1)


def of_two_samples(one: list[Tokens], other: list[Tokens], law: dict[Tokens, float]) -> ChiSquared:
    """Whether two samples have one law. `law` only chooses the cells."""
    cells = Cells(law, min(len(one), len(other)))
    table = [pair for pair in zip(cells.counts(one), cells.counts(other), strict=True) if sum(pair)]
    if len(table) < 2:
        return NOTHING
    result = stats.chi2_contingency(table, correction=False)
    return ChiSquared(float(result.statistic), int(result.dof))
