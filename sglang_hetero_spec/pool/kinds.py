"""The words that a manifest may use, and the bounds of a drafter's draft tree."""

from __future__ import annotations

KNOWN_KINDS = ("standalone", "lora", "sorted", "ngram", "none")
LATER_KINDS = ("eagle3",)
# Kinds that draft and may have no `path`.
WITHOUT_FILES = ("ngram",)
KNOWN_VOCABS = ("shared", "tli", "slem", "slrs", "auto")
# Chosen when the pool is loaded with its target (pool/foreign.py).
AUTO = "auto"

MAX_NUM_STEPS = 64
MAX_TOPK = 32
MAX_NUM_DRAFT_TOKENS = 128


def max_tree_nodes(num_steps: int, topk: int) -> int:
    """Nodes that a draft tree can have: the root, `topk` children, then `topk * topk` candidates a step."""
    return 1 + topk + topk * topk * (num_steps - 1)
