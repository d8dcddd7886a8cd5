"""The target's answers as a drafter with another vocabulary will read them when it serves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from sglang_hetero_spec.build.align.answers import NOT_SHARED, Row
from sglang_hetero_spec.vocab.boundary import Boundaries
from sglang_hetero_spec.vocab.draft_history import DraftHistory
from sglang_hetero_spec.vocab.mapped_history import Readings
from sglang_hetero_spec.vocab.pairing import Pairing


def as_text(rows: Iterable[Row], pairing: Pairing) -> tuple[Row, ...]:
    """In the drafter's own tokens of the text, as `slem` and `slrs` have it. Rows without any token are left out.

    The prompt's last token may become one with the beginning of the answer; then it is the answer's.
    """
    draft = Boundaries(pairing.draft)
    found = (_text_row(row, pairing, draft) for row in rows)
    return tuple(row for row in found if row.prompt and row.answer)


def _text_row(row: Row, pairing: Pairing, draft: Boundaries) -> Row:
    history = DraftHistory(draft, pairing.target.table, pairing.shared)
    history.commit(row.prompt)
    change = history.commit(row.answer)
    prompt, answer = tuple(history.tokens[: change.num_keep]), tuple(change.feed)
    return replace(row, prompt=prompt, answer=answer, said=row)


def token_by_token(rows: Iterable[Row], pairing: Pairing) -> tuple[Row, ...]:
    """Every token of the target by itself, as `tli` reads them; what is predicted is the target's tokens."""
    readings = Readings.of(pairing.shared, pairing.draft)
    label_of = _labels(pairing)
    found = (_mapped_row(row, readings, label_of) for row in rows)
    return tuple(row for row in found if row.prompt and row.answer)


def _labels(pairing: Pairing) -> np.ndarray:
    """[V_target]: the number of a target token among `draft_ids`, or NOT_SHARED."""
    shared = pairing.shared
    labels = np.full(len(shared.target_to_draft), NOT_SHARED, np.int64)
    labels[shared.draft_to_target[shared.draft_ids]] = np.arange(len(shared.draft_ids))
    return labels


def _mapped_row(row: Row, readings: Readings, label_of: np.ndarray) -> Row:
    first = readings.read(row.prompt[0])
    prompt = [] if not readings.begin or first[:1] == readings.begin[:1] else [*readings.begin]
    prompt += [token for said in row.prompt for token in readings.read(said)]
    answer: list[int] = []
    places = []
    for said in row.answer:
        places.append(len(prompt) + len(answer) - 1)
        answer += readings.read(said)
    labels = tuple(label_of[list(row.answer)].tolist())
    return replace(row, prompt=tuple(prompt), answer=tuple(answer), said=row, places=tuple(places), labels=labels)
