"""Does a draft model know the tokenizer that lies beside it? Seen in how it reads a text.

A foreign tokenizer of equal size and with equal special tokens says something else with the model's ids: then the token
that really follows is no likelier to the model than others of the same text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sglang_hetero_spec.drafters.base import DraftBatch
from sglang_hetero_spec.drafters.sequences import Sequences

# Of several kinds, as a drafter may know but one of them.
_TEXT = """The river was wide, and nobody knew who had built the old bridge. In 1984 she paid 25 euros for a house.
def read_lines(path):
    with open(path) as file:
        return [line.strip() for line in file]

{"name": "Anna", "age": 31, "city": "Berlin"}
SELECT title FROM books WHERE price < 10 ORDER BY year;
Der Hund schl\u00e4ft im Garten, weil es heute sehr warm ist. \u6cb3\u8fb9\u6709\u4e00\u5ea7\u65e7\u6865\u3002"""
TEXT = _TEXT.encode()
_NAME = "tokenizer fit"
_MOST_TOKENS = 256
# What fewer tokens show may be chance.
_FEWEST_SCORED = 20
_MOST_SCORED = 64
_LEAST_ERRORS = 2.0


@dataclass(frozen=True)
class Fit:
    """gain: by how many nats the token that follows is likelier than the others of the text, on average; error: its
    standard error."""

    gain: float
    error: float

    @property
    def is_chance(self) -> bool:
        return self.gain < _LEAST_ERRORS * self.error


def tokenizer_fit(
    sequences: Sequences, ids: Sequence[int], columns: Sequence[int] | None, device: torch.device | str
) -> Fit | None:
    """None where too little can be seen. ids: the text in the drafter's tokens; columns: the draft ids that its logits
    are of, None for all."""
    ids = list(ids[: min(_MOST_TOKENS, sequences.max_len)])
    column_of = None if columns is None else {token_id: i for i, token_id in enumerate(columns)}
    # Only the first use of each token: what stands in the text already can be copied without being known.
    places = [i for i in range(1, len(ids)) if ids[i] not in ids[:i] and (column_of is None or ids[i] in column_of)]
    places = places[:_MOST_SCORED]
    if len(places) < _FEWEST_SCORED:
        return None
    logits = _read(sequences, ids, places, device)
    if logits is None:
        return None
    wanted = torch.tensor([ids[i] if column_of is None else column_of[ids[i]] for i in places], device=logits.device)
    scores = logits.float().log_softmax(dim=-1)[:, wanted]
    gains = scores.diagonal() - scores.mean(dim=1)
    return Fit(float(gains.mean()), float(gains.std()) / len(places) ** 0.5)


def _read(sequences: Sequences, ids: list[int], places: list[int], device: torch.device | str) -> torch.Tensor | None:
    """Logits in front of these places, [n, m]; None where there is no room."""
    row = sequences.open(_NAME, (_NAME,))
    if row is None or not sequences.reserve(_NAME, len(ids), (_NAME,)):
        sequences.close(_NAME)
        return None
    sequences.write([row] * len(ids), range(len(ids)), ids)
    logits, num_read = [], 0
    for place in places:
        length = torch.tensor([place - 1])
        batch = DraftBatch(
            rows=torch.tensor([row], device=device),
            seq_lens=length.to(device),
            root_tokens=torch.tensor([ids[place - 1]], device=device),
            seq_lens_cpu=length,
            rids=(_NAME,),
        )
        logits.append(sequences.model.read_window(batch, place - num_read)[0])
        num_read = place
    sequences.close(_NAME)
    return torch.stack(logits)
