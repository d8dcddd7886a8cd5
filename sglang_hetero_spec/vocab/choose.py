"""`vocab: auto`: which mode a drafter with a vocabulary of its own is served in.

Measured is the share of what the target writes on the pool's tasks (token_weights.py; else of its vocabulary) that the
drafter can propose under TLI. TLI is accepted at most so often. From 0.95 on it is `tli`: a chain of four can then keep
0.90 of its accept length (1 + s + ... + s^4 of 5), every step stays on the device, and the authors of arXiv 2502.05202
take TLI from 95% on, too. Below, `slem` drafts with the whole vocabulary, for the price of some text work on the host.
`slrs` takes a draft forward for every beginning of a token, so it is never chosen, only asked for. A drafter with the
target's own vocabulary is `shared`; that is found before (pool/foreign.py).
"""

from __future__ import annotations

from typing import NamedTuple

from sglang_hetero_spec.vocab.overlap import Overlap

ENOUGH_FOR_TLI = 0.95


class Choice(NamedTuple):
    """reason: half a sentence, for people."""

    mode: str
    reason: str


def choose(overlap: Overlap) -> Choice:
    shares, limit = f"it shares {overlap.shown_share}", f"{100 * ENOUGH_FOR_TLI:.0f}%"
    if overlap.share >= ENOUGH_FOR_TLI:
        return Choice("tli", f"{shares}, at least {limit}")
    return Choice("slem", f"{shares}, less than the {limit} that `tli` takes")
