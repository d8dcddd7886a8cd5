"""How the one checkpoint that serves both targets of the demo did on each, as measured when it was made."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sglang_hetero_spec.demo.errors import DemoError
from sglang_hetero_spec.demo.shipped import Shipped

if TYPE_CHECKING:
    from rich.table import Table

FIGURES_NAME = "two_targets.json"
FORMAT, SCHEMA_VERSION = "sglang_hetero_spec.two_targets", 1


@dataclass(frozen=True)
class OneTarget:
    """Figures of the mixed workload, one request in flight. num_params: of the target as it was served. exits,
    thresholds, num_steps: of the drafter there. speeds in tokens per second; best_fixed: its best fixed exit. own: a
    drafter made for this target alone. Each ratio is the checkpoint's speed over the other's, with its standard
    error."""

    target: str
    num_params: int
    exits: tuple[int, ...]
    thresholds: tuple[float, ...]
    num_steps: int
    accept_length: float
    tokens_per_second: float
    none: float
    best_fixed: str
    over_fixed: float
    over_fixed_error: float
    over_own: float
    over_own_error: float


@dataclass(frozen=True)
class TwoTargets:
    """command: what measured it."""

    drafter: str
    command: str
    targets: tuple[OneTarget, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def note(self) -> str:
        return (
            f"One checkpoint, `{self.drafter}`, serves both targets, with thresholds of its own for each; own: a"
            f" drafter made for this target alone. Measured when the demo was made: {self.command}"
        )


def shipped_figures(shipped: Shipped) -> TwoTargets | None:
    """None where they were not measured; DemoError for a file that says something else."""
    path = shipped.root / FIGURES_NAME
    if not path.is_file():
        return None
    try:
        return read_figures(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        raise DemoError(f"{path} is damaged; install the package again.") from None


def read_figures(found: dict[str, Any]) -> TwoTargets:
    """ValueError, KeyError or TypeError for what `write_figures` would not write."""
    if (found["format"], found["schema_version"]) != (FORMAT, SCHEMA_VERSION):
        raise ValueError(found["format"])
    targets = tuple(
        OneTarget(**{**row, "exits": tuple(row["exits"]), "thresholds": tuple(row["thresholds"])})
        for row in found["targets"]
    )
    return TwoTargets(found["drafter"], found["command"], targets)


def as_file(figures: TwoTargets) -> dict[str, Any]:
    """The content of two_targets.json."""
    return {"format": FORMAT, "schema_version": SCHEMA_VERSION, **figures.as_dict()}


def two_table(figures: TwoTargets) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        *("target", "parameters", "leaves behind layer (if sure to)", "steps", "accept length"),
        *("tok/s\nnone", "tok/s", "over its best\nfixed exit", "over\nown"),
        title="One sorted drafter, two targets",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for row in figures.targets:
        table.add_row(
            escape(row.target),
            f"{row.num_params / 1e6:.0f}M",
            _leaves(row),
            str(row.num_steps),
            f"{row.accept_length:.2f}",
            f"{row.none:.1f}",
            f"{row.tokens_per_second:.1f}",
            f"{row.over_fixed:.3f} +- {row.over_fixed_error:.3f}",
            f"{row.over_own:.3f} +- {row.over_own_error:.3f}",
        )
    return table


def _leaves(row: OneTarget) -> str:
    *inner, last = row.exits
    sure = [f"{layers} ({threshold:g})" for layers, threshold in zip(inner, row.thresholds, strict=True)]
    return ", ".join([*sure, str(last)])
