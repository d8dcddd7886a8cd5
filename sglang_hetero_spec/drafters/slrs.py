"""`vocab: slrs`: target tokens drawn from psi, the law of what the drafter writes next (2502.05202, algorithm 3).

psi is exact and known for every token, so a draft t is accepted with min(1, p(t) / psi(t)), which is never below exact
match. It takes the drafter's law behind every beginning of a target token: a tree of short texts, read in parts.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from sglang_hetero_spec.cuda.transfer import from_host
from sglang_hetero_spec.drafters.base import DraftBatch
from sglang_hetero_spec.drafters.own_vocab import OwnBatch, OwnVocabDrafter
from sglang_hetero_spec.drafters.sequences import Sequences
from sglang_hetero_spec.drafters.text_tree import TextTree
from sglang_hetero_spec.drafters.tree import DraftLaw, DraftTree, chain
from sglang_hetero_spec.pool import DrafterSpec
from sglang_hetero_spec.vocab.mapped_history import MappedHistory, Readings
from sglang_hetero_spec.vocab.pairing import Pairing
from sglang_hetero_spec.vocab.psi import Drafter
from sglang_hetero_spec.vocab.psi_plan import PsiPlan
from sglang_hetero_spec.vocab.psi_rules import LongestMatch


def psi_plan(pairing: Pairing) -> PsiPlan:
    """PsiTooLarge where it would take too many sequences."""
    shared, draft = pairing.shared, pairing.draft.table
    not_text = (i for i in shared.draft_ids.tolist() if draft.piece(i) is None)
    ends = {i: int(shared.draft_to_target[i]) for i in not_text}
    target = pairing.target
    tokens = {piece: target.canonical(piece) for piece in target.table.ids_by_bytes}
    rule = LongestMatch({piece: token_id for piece, token_id in tokens.items() if token_id is not None})
    return PsiPlan.make(Drafter(draft.pieces, ends), rule)


class SlrsDrafter(OwnVocabDrafter):
    """spec.num_steps: target tokens proposed at each step."""

    def __init__(self, spec: DrafterSpec, sequences: Sequences, pairing: Pairing, tree: TextTree) -> None:
        super().__init__(spec, sequences, room=slrs_room(spec, pairing, tree))
        self._readings_of = Readings.of(pairing.shared, pairing.draft)
        self._tree = tree

    def new_history(self) -> MappedHistory:
        return MappedHistory(self._readings_of)

    def draft(self, own: OwnBatch, logits: torch.Tensor) -> DraftTree:
        batch, laws = own.batch, []
        drafts: list[list[int]] = [[] for _ in own.readings]
        void: list[list[bool]] = [[] for _ in own.readings]
        for step in range(self.spec.num_steps):
            if step:
                batch, logits = self._read_drafts(own, batch, [mine[-1] for mine in drafts])
            psi = self._psi(batch, logits)
            chosen, law = _choose(batch, psi, step)
            laws.append(law)
            for mine, is_void, token in zip(drafts, void, chosen.tolist(), strict=True):
                is_void.append(token == psi.shape[1])
                mine.append(0 if is_void[-1] else token)
        return self._as_tree(own, drafts, void, None if batch.sampler is None else torch.stack(laws, dim=1))

    def _psi(self, batch: DraftBatch, logits: torch.Tensor) -> torch.Tensor:
        """float32 [k, V_target]."""
        temperatures = 1.0 if batch.sampler is None else batch.sampler.temperatures
        return self._tree.psi(self.sequences.model, batch, logits, temperatures)

    def _read_drafts(self, own: OwnBatch, batch: DraftBatch, drafts: list[int]) -> tuple[DraftBatch, torch.Tensor]:
        """As if the last drafts were committed. drafts: [k] target ids. Logits behind them."""
        texts = [self._readings_of.read(token) for token in drafts]
        at, positions, tokens = [], [], []
        for reading, row, text in zip(own.readings, own.rows, texts, strict=True):
            length = len(reading.history.tokens) + len(reading.fed)
            at += [row] * len(text)
            positions += range(length, length + len(text))
            tokens += text
            reading.fed = [*reading.fed, *text]
            reading.num_read += len(text)
        self.sequences.write(at, positions, tokens)
        sizes = torch.tensor([len(text) for text in texts])
        longer = replace(
            batch,
            seq_lens=batch.seq_lens + from_host(sizes, batch.seq_lens.device),
            seq_lens_cpu=None if batch.seq_lens_cpu is None else batch.seq_lens_cpu + sizes,
        )
        return longer, self.sequences.model.read_window(longer, max(1, int(sizes.max())))

    def _as_tree(
        self, own: OwnBatch, drafts: list[list[int]], void: list[list[bool]], probs: torch.Tensor | None
    ) -> DraftTree:
        device = own.roots.device
        tokens = torch.cat((own.roots.unsqueeze(1), from_host(torch.tensor(drafts), device)), dim=1)
        law = None if probs is None else DraftLaw(probs, void=from_host(torch.tensor(void), device, torch.bool))
        return chain(tokens, num_fed=0, law=law)


def slrs_room(spec: DrafterSpec, pairing: Pairing, tree: TextTree) -> int:
    """Places behind the committed tokens that a proposal writes to: drafts, and one part of the tree behind them."""
    longest = max((len(piece) for piece in pairing.target.table.pieces if piece), default=1)
    return spec.num_steps * longest + tree.width + 1


def _choose(batch: DraftBatch, psi: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Drafts [k], V_target for one that is no target token; and the law they were drawn from."""
    if batch.sampler is None:
        return psi.argmax(dim=-1), psi
    return batch.sampler.draw_from(psi, step)
