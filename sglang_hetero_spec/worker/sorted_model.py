"""`drafters.sorted.SortedModel` on CPU: `CpuLlama` cut into segments, one between each two exits.

A token that was left at an exit has KV in the segments before it, and its hidden state there is kept, in its own KV
slot, until a later token of its request goes deeper: then one forward brings both, and all others that are pending,
through the next segment. What is computed so is, bit for bit in float32, what a forward through all layers at once
would have computed: every operation is by row, and shapes are chosen so that rows come out alike (see `ROWS`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import torch
import torch.nn.functional as F

from sglang_hetero_spec.cpu.threads import threads_worth_waking
from sglang_hetero_spec.drafters.base import DraftBatch
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.pool import DrafterSpec
from sglang_hetero_spec.worker.cpu_llama import CpuLlama, GatheredKV, Tokens, supports
from sglang_hetero_spec.worker.draft_model import Head, SGLangDraftModel, SharedState

if TYPE_CHECKING:
    from sglang.srt.model_executor.model_runner import ModelRunner

# What float32 depends on (PyTorch 2.14, MKL 2024.2, AVX-512; held by tests/worker/test_sorted_model.py). MKL's product
# gives a row the same bits among 4 rows, 8, 12 and so on, on any number of threads, but not among 1 to 3 nor, on
# several threads, among 5, 6 or 7. PyTorch's attention gives a query the same bits among 4 or more, and takes keys in
# blocks of 512, of which only the last may be shorter: masked keys at its end change nothing where it has a multiple of
# 16 keys, but not from 208 to 368, which MKL sums in another order.
ROWS = 4
KEYS, KEY_BLOCK, SUMMED_OTHERWISE, SUMMED_ALIKE = 16, 512, 192, 384
# Filled positions are noted for other requests with the same prefix when so many are new.
NOTE_EVERY = 32


@dataclass
class OpenProposal:
    """What the forwards of one proposal share. rows: [b]; slots: [b, C] int64, the pool slot of each column; columns:
    [C]; last: [b] int64, the position that each request read last; gathered: of each segment, for whom it was last."""

    rows: torch.Tensor
    slots: torch.Tensor
    columns: torch.Tensor
    last: torch.Tensor
    gathered: dict[int, tuple[Sequence[int], GatheredKV]] = field(default_factory=dict)


class SortedCpuModel(SGLangDraftModel):
    """exits: layers of each sub-model, ascending, the last one the whole model. room: columns behind the root that a
    proposal may fill."""

    def __init__(self, drafter: int, runner: ModelRunner, head: Head, room: int, exits: Sequence[int]) -> None:
        super().__init__(drafter, runner, head)
        self._room = room
        self._segments = [slice(start, end) for start, end in pairwise((0, *exits))]

    @property
    def hidden_cell_bytes(self) -> int:
        config = self.runner.model_config
        element = torch.empty((), dtype=self.runner.dtype).element_size()
        return (len(self._segments) - 1) * config.hidden_size * element

    def attach(self, shared: SharedState) -> None:
        super().attach(shared)
        self._llama = CpuLlama(self.runner, min(self.head.size, self.runner.model_config.vocab_size))
        num_rows, num_slots = shared.req_to_token.shape[0], shared.written.num_slots
        inner = len(self._segments) - 1
        self._rows = ROWS if self._llama.dtype == torch.float32 else 1
        # In front of every segment but the first, by slot: what waits to go through it.
        self._waiting = torch.zeros((inner, num_slots, self._llama.hidden_size), dtype=self._llama.dtype)
        # By request row and segment: how many leading positions have their KV there. Never more in a later segment.
        self._filled = torch.zeros((num_rows, inner + 1), dtype=torch.int64)
        # By request row: how many of the positions that are filled in all segments `written` knows of.
        self._noted = torch.zeros(num_rows, dtype=torch.int64)

    def catch_up(self, batch: DraftBatch, window: int) -> None:
        super().catch_up(batch, window)
        newcomers = torch.tensor(batch.newcomers)
        rows, read = batch.rows[newcomers], _starts(batch.seq_lens[newcomers], window)
        self._filled[rows], self._noted[rows] = read.unsqueeze(1), read

    @torch.no_grad()
    def read_window(self, batch: DraftBatch, window: int) -> torch.Tensor:
        starts = _starts(batch.seq_lens, window)
        self._filled[batch.rows] = self._filled[batch.rows].clamp(max=starts.unsqueeze(1))
        self._open(batch)
        self._note(batch)
        positions = self._up_to_last(starts, window)
        return self._read_first(self.shared.history.read(batch.rows.unsqueeze(1), positions), positions)

    @torch.no_grad()
    def read_next(self, batch: DraftBatch, tokens: torch.Tensor, offset: int) -> torch.Tensor:
        self._proposal.last = batch.seq_lens + offset
        positions = self._up_to_last(self._proposal.last, 1)
        return self._read_first(tokens.unsqueeze(1).expand_as(positions), positions)

    @torch.no_grad()
    def read_deeper(self, batch: DraftBatch, exit: int, members: Sequence[int]) -> torch.Tensor:
        everyone = len(members) == len(batch.rows)
        chosen = slice(None) if everyone else torch.tensor(members)
        last = self._proposal.last[chosen]
        starts = self._filled[batch.rows[chosen], exit]
        positions = self._up_to_last(starts, int((last + 1 - starts).max()), chosen)
        columns = positions.clamp(max=self._proposal.slots.shape[1] - 1)
        waiting = self._waiting[exit - 1, self._proposal.slots[chosen].gather(1, columns)]
        return self._through(exit, members, chosen, waiting, positions)

    def _open(self, batch: DraftBatch) -> None:
        table = self.shared.req_to_token
        width = min(int(batch.seq_lens.max()) + self._room, table.shape[1])
        if self._rows > 1:
            width = alike_keys(width)
        slots = table[:, :width].index_select(0, batch.rows).to(torch.int64)
        slots = F.pad(slots, (0, width - slots.shape[1]))
        self._proposal = OpenProposal(batch.rows, slots, torch.arange(width), batch.seq_lens)

    def _note(self, batch: DraftBatch) -> None:
        """Tell other requests which committed tokens have all their KV."""
        filled, noted = self._filled[batch.rows, -1], self._noted[batch.rows]
        if int((filled - noted).max()) >= NOTE_EVERY:
            columns = self._proposal.columns
            is_new = (columns >= noted.unsqueeze(1)) & (columns < filled.unsqueeze(1))
            self.shared.written.mark(self.drafter, self._proposal.slots[is_new])
            self._noted[batch.rows] = filled

    def _up_to_last(self, starts: torch.Tensor, width: int, chosen: slice | torch.Tensor = slice(None)) -> torch.Tensor:
        """Positions from `starts` to the last, [b, w]; behind the last one it again, as often as rows want company."""
        width = -(-width // self._rows) * self._rows
        positions = starts.unsqueeze(1) + torch.arange(width)
        return torch.minimum(positions, self._proposal.last[chosen].unsqueeze(1))

    def _read_first(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        hidden = self._llama.embed(ids.clamp(max=self.runner.model_config.vocab_size - 1))
        return self._through(0, range(len(ids)), slice(None), hidden, positions)

    def _through(
        self,
        segment: int,
        members: Sequence[int],
        chosen: slice | torch.Tensor,
        hidden: torch.Tensor,
        positions: torch.Tensor,
    ) -> torch.Tensor:
        """Write the segment's KV of these positions [n, w], of these members; logits at the last, [n, V].

        chosen: the members as an index of the proposal's requests.
        """
        layers, proposal = self._segments[segment], self._proposal
        slots = proposal.slots[chosen]
        columns = positions.clamp(max=slots.shape[1] - 1)
        tokens = Tokens(
            ids=positions,  # not read
            positions=positions,
            columns=columns,
            slots=slots.gather(1, columns),
            visible=(proposal.columns <= positions.unsqueeze(2)).unsqueeze(1),
        )
        with threads_worth_waking(positions.numel() * self._llama.operations(layers)):
            hidden = self._llama.read_layers(hidden, tokens, self._gathered(segment, members, slots), layers)
            if segment < len(self._waiting):
                self._waiting[segment, tokens.slots] = hidden
            self._filled[proposal.rows[chosen], segment] = positions[:, -1] + 1
            return self._llama.logits(self._llama.normed(hidden[:, -1]))

    def _gathered(self, segment: int, members: Sequence[int], slots: torch.Tensor) -> GatheredKV:
        """Every forward writes to the pool too, so what was gathered for others is gathered again."""
        known = self._proposal.gathered.get(segment)
        if known is None or known[0] != members:
            known = (members, self._llama.gather(slots, self._segments[segment]))
            self._proposal.gathered[segment] = known
        return known[1]


def alike_keys(width: int) -> int:
    """At least `width`, and so many keys that none of them is summed in another order for those behind it."""
    blocks, rest = divmod(-(-width // KEYS) * KEYS, KEY_BLOCK)
    return blocks * KEY_BLOCK + (SUMMED_ALIKE if SUMMED_OTHERWISE < rest < SUMMED_ALIKE else rest)


def _starts(seq_lens: torch.Tensor, window: int) -> torch.Tensor:
    """First position of the last `window` committed tokens."""
    return (seq_lens - (window - 1)).clamp(min=0)


def build_sorted_model(
    *, spec: DrafterSpec, drafter: int, runner: ModelRunner, head: Head, room: int
) -> SortedCpuModel:
    """HeteroError where the model cannot be left between its layers."""
    if not supports(runner):
        raise HeteroError(
            f"The drafter `{spec.name}` is of kind `sorted`, which on a CPU this version serves on one rank, for models"
            " like Llama, Mistral or Qwen2 that are not quantised; serve it as kind `standalone`, which goes through"
            " all its layers."
        )
    cut_layers(runner, spec.exits[-1])
    return SortedCpuModel(drafter, runner, head, room, spec.exits)


def cut_layers(runner: ModelRunner, num_layers: int) -> None:
    """Forget the layers behind the last exit, before their KV pool is made."""
    inner = runner.model.model
    inner.layers = inner.layers[:num_layers]
    inner.end_layer = num_layers
    runner.layer_info = msgspec.structs.replace(
        runner.layer_info, end_layer=num_layers, num_effective_layers=num_layers
    )
