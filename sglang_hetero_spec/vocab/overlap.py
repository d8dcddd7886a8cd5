"""How much a drafter's vocabulary has in common with the target's, in figures and in a sentence."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from sglang_hetero_spec.vocab.intersection import Relation
from sglang_hetero_spec.vocab.pairing import Pairing
from sglang_hetero_spec.vocab.token_weights import TokenWeights

# With this share of the target's tokens, a draft of any length brings at most 1 / (1 - 0.7) = 3.3 tokens a step.
LOW_SHARE = 0.7


@dataclass(frozen=True)
class Overlap:
    """num_shared: tokens that stand for the same bytes, or have the same role, on both sides. num_target, num_draft:
    ids of either side that stand for something. relation: `intersection.Relation`. mass: the part, 0 to 1, of what the
    target writes that lies on shared tokens; mass_of: what that was counted in; both None where nothing is known.
    """

    num_shared: int
    num_target: int
    num_draft: int
    relation: str
    mass: float | None
    mass_of: str | None

    @property
    def target_percent(self) -> float:
        return 100.0 * self.num_shared / max(self.num_target, 1)

    @property
    def draft_percent(self) -> float:
        return 100.0 * self.num_shared / max(self.num_draft, 1)

    @property
    def share(self) -> float:
        """0 to 1: of what the target writes, else of its vocabulary. TLI accepts at most this part of its drafts."""
        return self.target_percent / 100.0 if self.mass is None else self.mass

    @property
    def shown_share(self) -> str:
        whole = "the target's vocabulary" if self.mass_of is None else f"the tokens in {self.mass_of}"
        return percent(100.0 * self.share, whole)

    def line(self, name: str, mode: str) -> str:
        """For the log and for people. name: the drafter's. mode: its `vocab`."""
        parts = [percent(self.target_percent, "the target's vocabulary"), percent(self.draft_percent, "the drafter's")]
        if self.mass is not None:
            parts.append(self.shown_share)
        return f"Drafter {name}, vocab {mode}: {self.num_shared:,} tokens are shared, {', '.join(parts)}."

    def warning(self, name: str, mode: str) -> str | None:
        """One sentence where another mode would do better, else None."""
        is_the_targets = self.relation in (Relation.IDENTICAL, Relation.PADDED) and self.num_draft >= self.num_target
        if is_the_targets and mode != "shared":
            return f"Drafter {name} has the target's own vocabulary: `shared` drafts the same, for less than `{mode}`."
        if mode == "tli" and self.share < LOW_SHARE:
            return (
                f"Drafter {name} can propose only {self.shown_share} with `tli`, too little to pay: use `slem`, which"
                " drafts with the whole vocabulary, or `auto`."
            )
        return None

    def as_dict(self) -> dict[str, Any]:
        """For JSON; shares in percent."""
        shares = {"target_percent": self.target_percent, "draft_percent": self.draft_percent}
        mass = {"mass_percent": None if self.mass is None else 100.0 * self.mass}
        return {name: value for name, value in asdict(self).items() if name != "mass"} | shares | mass


def percent(value: float, whole: str) -> str:
    """Rounded down: 100% is all of it, and what is below a limit does not look like it."""
    return f"{math.floor(round(10.0 * value, 6)) / 10.0:.1f}% of {whole}"


def describe(pairing: Pairing, weights: TokenWeights | None = None) -> Overlap:
    """weights: how often the target writes each token (`token_weights.pool_weights`)."""
    shared = pairing.shared
    return Overlap(
        num_shared=len(shared.draft_ids),
        num_target=shared.num_target,
        num_draft=shared.num_draft,
        relation=shared.relation.value,
        mass=None if weights is None else shared.covered_mass(weights.counts),
        mass_of=None if weights is None else weights.source,
    )
