"""psi in arrays: which draft sequences to read is known before any forward, so it is laid out once.

The drafter gives one row of probabilities per sequence (a tree of short texts behind the context); what remains is
products along the tree and one sum by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sglang_hetero_spec.vocab.psi import MAX_SEQUENCES, Drafter, agree, too_large
from sglang_hetero_spec.vocab.psi_rules import UNDECIDED, UNMAPPED, FirstToken


@dataclass(frozen=True)
class PsiPlan:
    """N undecided sequences of a drafter with V_draft ids, shortest first; sequence 0 is empty.

    sequences, texts: N draft token sequences and their bytes. parents: int32 [N], the sequence without its last token.
    last: int32 [N], that token; both -1 for sequence 0. outcomes: int32 [N, V_draft], what a next token makes of the
    sequence: a target id, UNMAPPED, or UNDECIDED where that is another sequence.
    """

    sequences: tuple[tuple[int, ...], ...]
    texts: tuple[bytes, ...]
    parents: np.ndarray
    last: np.ndarray
    outcomes: np.ndarray

    @classmethod
    def make(cls, drafter: Drafter, rule: FirstToken, max_sequences: int = MAX_SEQUENCES) -> PsiPlan:
        """PsiTooLarge where there are more sequences."""
        sequences: list[tuple[int, ...]] = [()]
        texts, parents, last = [b""], [-1], [-1]
        rows: list[list[int]] = []
        while len(rows) < len(sequences):
            node = len(rows)
            row = []
            for draft_id in range(len(drafter.pieces)):
                text, outcome = drafter.target_of(texts[node], draft_id, rule)
                row.append(outcome)
                if outcome == UNDECIDED:
                    sequences.append((*sequences[node], draft_id))
                    texts.append(text)
                    parents.append(node)
                    last.append(draft_id)
            if len(sequences) > max_sequences:
                raise too_large(len(sequences), max_sequences)
            rows.append(row)
        arrays = (np.array(each, np.int32) for each in (parents, last, rows))
        return cls(tuple(sequences), tuple(texts), *arrays)

    def needed_for(self, piece: bytes) -> np.ndarray:
        """int64 [k] ascending: the sequences that psi of the token with these bytes depends on; for a token that is no
        text (b"") the empty one."""
        if not piece:
            return np.zeros(1, np.int64)
        return np.flatnonzero([agree(text, piece) for text in self.texts])

    def psi(self, rows: np.ndarray, num_target: int) -> tuple[np.ndarray, float]:
        """float64 [num_target], and the unmapped mass. rows: [N, V_draft], the law of the token behind each."""
        weights = self._reach(range(len(self.sequences)), rows)[:, None] * rows
        decided = self.outcomes != UNDECIDED
        mass = np.bincount(self.outcomes[decided] - UNMAPPED, weights[decided], minlength=num_target + 1)
        return mass[1:], float(mass[0])

    def psi_of(self, target_id: int, needed: np.ndarray, rows: np.ndarray) -> float:
        """psi of one token. needed: [k], of its bytes. rows: [k, V_draft], of these sequences."""
        reach = self._reach(needed.tolist(), rows)
        return float((reach[:, None] * rows)[self.outcomes[needed] == target_id].sum())

    def _reach(self, needed: Sequence[int], rows: np.ndarray) -> np.ndarray:
        """float64 [k]: the probability of each of these sequences, whose parents are among them."""
        place = {node: i for i, node in enumerate(needed)}
        reach = np.ones(len(rows), np.float64)
        for i, node in enumerate(needed):
            if node:
                above = place[int(self.parents[node])]
                reach[i] = reach[above] * rows[above, self.last[node]]
        return reach
