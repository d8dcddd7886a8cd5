"""The shape of a draft that goes by text (`vocab: slem`), where a chain of the target's tokens was asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sglang_hetero_spec.build.profile.candidates import Candidate
from sglang_hetero_spec.build.profile.records import Settings
from sglang_hetero_spec.pool.kinds import MAX_NUM_DRAFT_TOKENS, MAX_NUM_STEPS
from sglang_hetero_spec.vocab.pairing import read_side

# The drafter's tokens may be longer than the target's, and where text can be cut in two ways both are proposed.
_ROOM = 2


def fitted(candidate: Candidate, target: str, texts: Sequence[Sequence[int]]) -> Candidate:
    """A checkpoint under `slem` with as many steps as its tokens need for the chain that was asked for; others as they
    are.

    texts: in the target's tokens, by which the lengths of tokens are compared. A byte takes more steps than a word.
    """
    if candidate.vocab != "slem" or not candidate.takes_shapes or candidate.path is None:
        return candidate
    theirs, ours = read_side(Path(target)), read_side(candidate.path)
    read = sum(len(ours.encode(theirs.table.in_the_middle(ids))) for ids in texts)
    asked = candidate.settings.num_steps
    num_steps = math.ceil(asked * read / max(1, sum(map(len, texts))))
    num_steps = min(MAX_NUM_STEPS, max(1, num_steps))
    nodes = min(MAX_NUM_DRAFT_TOKENS, _ROOM * asked + 1)
    if nodes == num_steps + 1:  # the shape of a chain, which the same drafter may be measured with under `tli`
        nodes -= 1 if nodes == MAX_NUM_DRAFT_TOKENS else -1
    return replace(candidate, settings=Settings(num_steps, 1, nodes))
