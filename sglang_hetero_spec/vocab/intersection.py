"""The tokens that two vocabularies share, found by their bytes (TLI, arXiv 2502.05202, algorithm 4).

Token strings are not compared: byte-level BPE and SentencePiece write the same bytes in different ways.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from sglang_hetero_spec.vocab.mid_text import MidText
from sglang_hetero_spec.vocab.roles import Role
from sglang_hetero_spec.vocab.token_bytes import TokenBytes

NO_TOKEN = -1


class Relation(StrEnum):
    """What two vocabularies are to each other, id by id. Merge rules are not compared: they change no id's meaning.

    PADDED: the same but for ids that one side has as an added token or padding, and the other not at all.
    PERMUTED: the same tokens under other ids.
    """

    IDENTICAL = "identical"
    PADDED = "padded"
    PERMUTED = "permuted"
    DIFFERENT = "different"


@dataclass(frozen=True)
class Intersection:
    """Maps between V_draft and V_target ids. All arrays are int32; -1 is no token.

    draft_to_target: [V_draft], the target token that a draft token is proposed as: one-to-one where it is not -1.
    target_to_draft: [V_target], the draft token that the drafter reads a target token as. Several target tokens may
        be read as one draft token; bos, pad and unk are read but never proposed.
    draft_ids: [n] ascending, the draft ids that can be proposed: the rows of a pruned LM head.
    spelled: [m], and offsets [V_target + 1]: target token t without a draft token is read as the draft tokens
        spelled[offsets[t] : offsets[t + 1]], its bytes in the drafter's own mid-text tokenisation; none for specials.
    num_target, num_draft: ids of either side that stand for something.
    first_difference: the lowest id with two meanings, -1 where there is none.
    """

    draft_to_target: np.ndarray
    target_to_draft: np.ndarray
    draft_ids: np.ndarray
    spelled: np.ndarray
    offsets: np.ndarray
    num_target: int
    num_draft: int
    relation: Relation
    first_difference: int

    @property
    def shared_targets(self) -> np.ndarray:
        """bool [V_target]: the target tokens that can be proposed."""
        shared = np.zeros(len(self.target_to_draft), bool)
        shared[self.draft_to_target[self.draft_ids]] = True
        return shared

    @property
    def target_percent(self) -> float:
        """Shared tokens in percent of the target's vocabulary."""
        return 100.0 * len(self.draft_ids) / max(self.num_target, 1)

    @property
    def draft_percent(self) -> float:
        """Shared tokens in percent of the drafter's vocabulary."""
        return 100.0 * len(self.draft_ids) / max(self.num_draft, 1)

    @property
    def draft_tokens_per_target_token(self) -> float:
        """Draft tokens that a target token is read as: the mean over the target's vocabulary, at least 1."""
        lens = np.where(self.target_to_draft == NO_TOKEN, np.diff(self.offsets), 1)
        return max(1.0, float(lens[lens > 0].mean())) if lens.any() else 1.0

    def covered_mass(self, weights: np.ndarray) -> float:
        """The part, 0 to 1, of the target's mass that lies on tokens that can be proposed.

        weights: [..., V_target], how often the target wrote each token, or its distributions; ids beyond V_target are
        padding of the model. 0 where there is no mass.
        """
        shared = self.shared_targets
        total = float(weights.sum(dtype=np.float64))
        return float(weights[..., : len(shared)][..., shared].sum(dtype=np.float64)) / total if total else 0.0

    def read_as(self, target_id: int) -> np.ndarray:
        """int32 [k]: the draft tokens that stand for one target token."""
        draft_id = self.target_to_draft[target_id]
        if draft_id != NO_TOKEN:
            return np.array([draft_id], np.int32)
        return self.spelled[self.offsets[target_id] : self.offsets[target_id + 1]]


def intersect(target: MidText, draft: MidText) -> Intersection:
    """Same bytes, same token. Specials by role: eos to eos, the rest by name.

    Of several ids with the same bytes the one that the tokenizer itself writes for them takes part, else the lowest.
    """
    proposed = _shared_text(target, draft) | _shared_ends(target.table, draft.table)
    proposed |= _shared_names(target.table, draft.table, proposed)
    target_to_draft = _readings(target.table, draft, proposed)
    draft_to_target = np.full(len(draft.table), NO_TOKEN, np.int32)
    draft_to_target[list(proposed)] = list(proposed.values())
    spelled, offsets = _spellings(target.table, draft, target_to_draft)
    relation, first = compare(target.table, draft.table)
    return Intersection(
        draft_to_target=draft_to_target,
        target_to_draft=target_to_draft,
        draft_ids=np.flatnonzero(draft_to_target != NO_TOKEN).astype(np.int32),
        spelled=spelled,
        offsets=offsets,
        num_target=int((target.table.roles != Role.NOTHING).sum()),
        num_draft=int((draft.table.roles != Role.NOTHING).sum()),
        relation=relation,
        first_difference=first,
    )


def compare(one: TokenBytes, other: TokenBytes) -> tuple[Relation, int]:
    """And the lowest id whose meanings differ, -1 where there is none but padding."""
    different, padding = [], False
    for token_id in range(max(len(one), len(other))):
        ours, theirs = _meaning(one, token_id), _meaning(other, token_id)
        if ours == theirs:
            continue
        if (ours is None and token_id in other.added) or (theirs is None and token_id in one.added):
            padding = True
        else:
            different.append(token_id)
    if not different:
        return (Relation.PADDED if padding or len(one) != len(other) else Relation.IDENTICAL), NO_TOKEN
    permuted = _meanings(one) == _meanings(other)
    return (Relation.PERMUTED if permuted else Relation.DIFFERENT), different[0]


def _meaning(table: TokenBytes, token_id: int) -> bytes | str | None:
    piece = table.piece(token_id)
    return table.names.get(token_id) if piece is None else piece


def _meanings(table: TokenBytes) -> Counter[bytes | str]:
    found = (_meaning(table, token_id) for token_id in range(len(table)))
    return Counter(meaning for meaning in found if meaning is not None)


def _shared_text(target: MidText, draft: MidText) -> dict[int, int]:
    """draft id -> target id."""
    shared = sorted(target.table.ids_by_bytes.keys() & draft.table.ids_by_bytes.keys())
    pairs = ((draft.canonical(piece), target.canonical(piece)) for piece in shared)
    return {ours: theirs for ours, theirs in pairs if ours is not None and theirs is not None}


def _shared_ends(target: TokenBytes, draft: TokenBytes) -> dict[int, int]:
    """Ends of the same name; the first of either side, where neither has found another."""
    named = {target.names[token_id]: token_id for token_id in reversed(target.eos)}
    ends = {ours: named[draft.names[ours]] for ours in draft.eos if draft.names[ours] in named}
    if draft.eos and target.eos and draft.eos[0] not in ends and target.eos[0] not in ends.values():
        ends[draft.eos[0]] = target.eos[0]
    return ends


def _shared_names(target: TokenBytes, draft: TokenBytes, taken: dict[int, int]) -> dict[int, int]:
    """Other specials of the same name. An eos on one side only is a special of its name, too."""
    free = {name: i for i, name in target.names.items() if _proposable(target, i) and i not in taken.values()}
    names = {i: name for i, name in draft.names.items() if _proposable(draft, i) and i not in taken}
    return {token_id: free[name] for token_id, name in names.items() if name in free}


def _proposable(table: TokenBytes, token_id: int) -> bool:
    return table.roles[token_id] in (Role.EOS, Role.SPECIAL)


def _readings(target: TokenBytes, draft: MidText, proposed: dict[int, int]) -> np.ndarray:
    """int32 [V_target], the draft token for each target token, or -1."""
    readings = np.full(len(target), NO_TOKEN, np.int32)
    for piece, ids in target.ids_by_bytes.items():
        token_id = draft.canonical(piece)
        readings[list(ids)] = NO_TOKEN if token_id is None else token_id
    for role in (Role.EOS, Role.BOS, Role.PAD, Role.UNK):
        token_id = draft.table.first(role)
        if token_id is not None:
            readings[target.roles == role] = token_id
    readings[list(proposed.values())] = list(proposed)
    return readings


def _spellings(target: TokenBytes, draft: MidText, readings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int32 [m] and [V_target + 1]."""
    missing = (p if p and reading == NO_TOKEN else None for p, reading in zip(target.pieces, readings, strict=True))
    ids = [draft.encode(piece) if piece else [] for piece in missing]
    offsets = np.cumsum([0, *map(len, ids)])
    return _int32(token_id for each in ids for token_id in each), _int32(offsets.tolist())


def _int32(values: Iterable[int]) -> np.ndarray:
    return np.fromiter(values, np.int32)
