"""What a drafter may start from, and how one start is chosen from several by a short training of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sglang_hetero_spec.build.align.evaluate import Counts
from sglang_hetero_spec.build.align.settings import AlignSettings


@dataclass(frozen=True)
class Start:
    """A drafter before training. `source`: "base", "layers" or "shape"; `loss`: of its training."""

    source: str
    loss: str
    layers: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        layers = f"-{'-'.join(map(str, self.layers))}" if self.layers else ""
        return f"{self.source}{layers}-{self.loss.replace('+', 'p')}"


@dataclass(frozen=True)
class Probe:
    """A start after a short training. `cost`: parameters that it reads for one token, as a share of the target's."""

    start: Start
    counts: Counts
    cost: float

    def speed(self, num_steps: int) -> float:
        """Tokens per verify step over its cost in target forwards, where reading weights is what takes the time."""
        return self.counts.accept_length / (1.0 + num_steps * self.cost)

    def as_dict(self, num_steps: int) -> dict[str, Any]:
        return {
            "start": self.start.name, "layers": list(self.start.layers), "loss": self.start.loss,
            "counts": self.counts.as_dict(), "cost": self.cost, "speed": round(self.speed(num_steps), 4),
        }  # fmt: skip


def layer_choices(layers: int | list[int] | str | None, count: int) -> list[tuple[int, ...]]:
    """Which of the target's `count` layers a drafter may keep.

    A list is taken as it is. A number k: the first k, or the first k - 1 and the last. "auto" or None: both of them for
    one layer, two, and about a quarter of the target.
    """
    if isinstance(layers, list):
        return [tuple(layers)]
    if isinstance(layers, int):
        sizes = [layers]
    else:
        sizes = sorted({size for size in (1, 2, count // 4) if 1 <= size < count} or {1})
    found: list[tuple[int, ...]] = []
    for size in sizes:
        first = tuple(range(size))
        with_last = (*first[:-1], count - 1)
        found += [first] if with_last == first or size >= count else [first, with_last]
    return found


def starts(settings: AlignSettings, has_base: bool, losses: Sequence[str], num_layers: int) -> list[Start]:
    """All candidates, the layers with the first loss only."""
    if has_base:
        return [Start("base", losses[0])]
    if settings.shape is not None:
        return [Start("shape", losses[0])]
    if settings.exits is not None and isinstance(settings.layers, int):
        return [Start("layers", losses[0], tuple(range(settings.layers)))]
    return [Start("layers", losses[0], layers) for layers in layer_choices(settings.layers, num_layers)]


def choose(
    candidates: Sequence[Start], measure: Callable[[Start], dict[str, Any]], say: Callable[[str], None]
) -> tuple[Start, list[dict[str, Any]]]:
    """The candidate with the best expected speed, and `measure`'s figures (of `Probe.as_dict`) of all."""
    if len(candidates) == 1:
        return candidates[0], []
    figures = [measure(start) for start in candidates]
    best = max(range(len(figures)), key=lambda i: (figures[i]["speed"], -i))
    say(f"chosen: {candidates[best].name}")
    return candidates[best], figures
