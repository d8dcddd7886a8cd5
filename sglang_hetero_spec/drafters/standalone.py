"""`standalone`: any causal language model with the target's vocabulary."""

from __future__ import annotations

from sglang_hetero_spec.drafters.slots import SlotsDrafter


class StandaloneDrafter(SlotsDrafter):
    """Drafts together with its adapters, if it has any (drafters.lora)."""
