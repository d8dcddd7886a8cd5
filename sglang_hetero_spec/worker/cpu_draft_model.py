"""The draft forwards of a verify step through `CpuLlama`, where the draft model is one that it knows.

Long prompts are still read by SGLang's own forward (`read_range`): there the work is in the matrices, not in the calls.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from sglang_hetero_spec.cpu.threads import threads_worth_waking
from sglang_hetero_spec.drafters.base import DraftBatch
from sglang_hetero_spec.drafters.tree import ancestors_of
from sglang_hetero_spec.worker.cpu_llama import CpuLlama, GatheredKV, Tokens, supports
from sglang_hetero_spec.worker.draft_model import Head, SGLangDraftModel, SharedState
from sglang_hetero_spec.worker.grouped_llama import LlamaGroup, group_alike

if TYPE_CHECKING:
    from sglang.srt.model_executor.model_runner import ModelRunner

    from sglang_hetero_spec.worker.lora import AtWork


# Up to here a prompt is read by the lean forward: some 10 ms of one core. SGLang's own takes 4 ms for none at all.
_SHORT_READ = 2e8
# Queries times keys of such a read: bounds its mask and scores.
_MOST_SCORES = 1 << 20


@dataclass(frozen=True)
class OpenProposal:
    """What the forwards of one proposal share. llama: that reads for all of its requests. slots: [b, C] int64, the pool
    slot of each column. lora: the requests' adapters."""

    llama: CpuLlama
    kv: GatheredKV
    slots: torch.Tensor
    lora: AtWork | None


class CpuDraftModel(SGLangDraftModel):
    """`drafters.base.DraftModel`; read_window opens a proposal, read_next and read_tree go on with it.

    group: of models that any one of them reads for (worker.grouped_llama); None where the model is alone. companions:
    the group's, by drafter; each reads the prompts of its own requests.
    """

    group: LlamaGroup | None = None
    companions: Mapping[int, CpuDraftModel]

    def __init__(self, drafter: int, runner: ModelRunner, head: Head, room: int) -> None:
        """room: columns behind the root that the forwards of one proposal may fill."""
        super().__init__(drafter, runner, head)
        self._room = room

    def attach(self, shared: SharedState) -> None:
        super().attach(shared)
        self.llama = CpuLlama(self.runner, min(self.head.size, self.runner.model_config.vocab_size))

    @property
    def together(self) -> Hashable:
        """A model that has adapters drafts with these, not with its group."""
        return id(self if self.group is None or self.adapters is not None else self.group)

    def catch_up(self, batch: DraftBatch, window: int) -> None:
        if not self._is_of_group(batch):
            super().catch_up(batch, window)
            return
        drafters = batch.drafters
        for drafter in {drafters[number] for number in batch.newcomers}:
            own = [place for place, number in enumerate(batch.newcomers) if drafters[number] == drafter]
            newcomers = tuple(batch.newcomers[place] for place in own)
            lens = tuple(batch.newcomer_lens[place] for place in own)
            part = replace(batch, newcomers=newcomers, newcomer_lens=lens, drafters=None)
            self.companions[drafter].catch_up(part, window)

    @torch.no_grad()
    def read_window(self, batch: DraftBatch, window: int) -> torch.Tensor:
        with self._threads_for(len(batch.rows) * window):
            return self._read_window(batch, window)

    @torch.no_grad()
    def read_next(self, batch: DraftBatch, tokens: torch.Tensor, offset: int) -> torch.Tensor:
        with self._threads_for(len(tokens)):
            positions = (batch.seq_lens + offset).unsqueeze(1)
            hidden = self._read(tokens.unsqueeze(1), positions, positions, self._up_to(positions))
            return self._proposal.llama.logits(hidden[:, 0])

    @torch.no_grad()
    def read_tree(self, batch: DraftBatch, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        with self._threads_for(tokens.numel()):
            return self._read_tree(batch, tokens, parents)

    @torch.no_grad()
    def read_range(
        self, rows: torch.Tensor, starts: list[int], ends: list[int], writers: Sequence[int] | None = None
    ) -> None:
        width = max(end - start for start, end in zip(starts, ends, strict=True))
        num_tokens = len(starts) * width
        operations = num_tokens * self.llama.operations_per_token
        if operations > _SHORT_READ or num_tokens * max(ends) > _MOST_SCORES:
            super().read_range(rows, starts, ends, writers)
            return
        firsts, lasts = torch.tensor([starts, ends]).unsqueeze(2)
        # A shorter range reads its last token again, to the same end.
        positions = torch.minimum(firsts + torch.arange(width), lasts - 1)
        slots = self.shared.req_to_token[:, : max(ends)].index_select(0, rows).to(torch.int64)
        read_slots = slots.gather(1, positions)
        with threads_worth_waking(operations):
            kv = self.llama.gather(slots)
            tokens = Tokens(
                ids=self._known_ids(self.shared.history.read(rows.unsqueeze(1), positions)),
                positions=positions,
                columns=positions,
                slots=read_slots,
                visible=(kv.columns <= positions.unsqueeze(2)).unsqueeze(1),
            )
            self.llama.read(tokens, kv, None if self.adapters is None else self.adapters.of(writers))
        self.shared.written.mark(self.drafter if writers is None else writers, read_slots)

    def _known_ids(self, ids: torch.Tensor) -> torch.Tensor:
        """The target may have ids that the draft model has not."""
        return ids.clamp(max=self.runner.model_config.vocab_size - 1)

    def _threads_for(self, num_tokens: int) -> AbstractContextManager[None]:
        return threads_worth_waking(num_tokens * self.llama.operations_per_token)

    def _read_window(self, batch: DraftBatch, window: int) -> torch.Tensor:
        starts = (batch.seq_lens - (window - 1)).clamp(min=0)
        positions = starts.unsqueeze(1) + torch.arange(window)
        self._open(batch, window)
        slots = self._proposal.slots.gather(1, positions)
        self.shared.written.mark(self.writers(batch), slots, positions <= batch.seq_lens.unsqueeze(1))
        ids = self.shared.history.read(batch.rows.unsqueeze(1), positions)
        hidden = self._read(ids, positions, positions, self._up_to(positions))
        root = batch.seq_lens - starts
        return self._proposal.llama.logits(hidden[torch.arange(len(root)), root])

    def _read_tree(self, batch: DraftBatch, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        # The same tree for all of them (drafters.text_tree) is walked once.
        ancestors, depths = ancestors_of(parents[:1] if parents.stride(0) == 0 else parents)
        ancestors = ancestors.expand(len(parents), -1, -1)
        first = (batch.seq_lens + 1).unsqueeze(1)
        columns = first + torch.arange(tokens.shape[1])
        visible = (self._proposal.kv.columns < first).unsqueeze(1).repeat(1, tokens.shape[1], 1)
        visible.scatter_(2, columns.unsqueeze(1).expand_as(ancestors), ancestors)
        hidden = self._read(tokens, first + depths, columns, visible.unsqueeze(1))
        return self._proposal.llama.logits(hidden)

    def _open(self, batch: DraftBatch, window: int) -> None:
        """window: tokens that are read first; of short requests some of them lie behind the root."""
        table = self.shared.req_to_token
        width = min(max(int(batch.seq_lens.max()) + self._room, window), table.shape[1])
        slots = table[:, :width].index_select(0, batch.rows).to(torch.int64)
        llama = self._llama_of(batch)
        self._proposal = OpenProposal(llama, kv=llama.gather(slots), slots=slots, lora=self.adapters_of(batch))

    def _llama_of(self, batch: DraftBatch) -> CpuLlama:
        return self.group.of(batch.drafters) if self._is_of_group(batch) else self.llama

    def _is_of_group(self, batch: DraftBatch) -> bool:
        return batch.drafters is not None and self.group is not None and self.adapters is None

    def _up_to(self, positions: torch.Tensor) -> torch.Tensor:
        """Every token sees the columns up to its own position. positions: [b, w]; returns [b, 1, w, C]."""
        return (self._proposal.kv.columns <= positions.unsqueeze(2)).unsqueeze(1)

    def _read(
        self, ids: torch.Tensor, positions: torch.Tensor, columns: torch.Tensor, visible: torch.Tensor
    ) -> torch.Tensor:
        columns = columns.clamp(max=self._proposal.slots.shape[1] - 1)
        tokens = Tokens(
            ids=self._known_ids(ids),
            positions=positions,
            columns=columns,
            slots=self._proposal.slots.gather(1, columns),
            visible=visible,
        )
        return self._proposal.llama.read(tokens, self._proposal.kv, self._proposal.lora)


def build_draft_model(*, drafter: int, runner: ModelRunner, head: Head, room: int) -> SGLangDraftModel:
    """The leaner forward where it is the same model, SGLang's everywhere else."""
    if supports(runner):
        return CpuDraftModel(drafter, runner, head, room)
    return SGLangDraftModel(drafter, runner, head)


def group_models(models: Iterable[SGLangDraftModel]) -> None:
    """Let those that are alike read together, once they are attached."""
    lean = {model.drafter: model for model in models if type(model) is CpuDraftModel and model.head.ids is None}
    for group in group_alike({number: model.llama for number, model in lean.items()}):
        for number in group.numbers:
            lean[number].group = group
            lean[number].companions = {other: lean[other] for other in group.numbers}
