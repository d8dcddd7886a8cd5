"""One draft model inside SGLang: its weights, its KV pool, and the forwards that drafters ask for.

A draft KV pool is indexed by the target's slots: slot i of a request holds token i, for the target and for every
drafter (SGLang's STANDALONE holds token i + 1 there: eagle_worker_v2.py, `_draft_extend_for_prefill`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode, ForwardBatch, ForwardMode
from sglang.srt.speculative.eagle_info import EagleDraftExtendInput
from sglang.srt.speculative.eagle_utils import default_tree_mask_mode

from sglang_hetero_spec.cuda.transfer import from_host, kept_on_device
from sglang_hetero_spec.drafters.base import DraftBatch
from sglang_hetero_spec.drafters.tree import NO_NODE, ancestors_of
from sglang_hetero_spec.worker.history import TokenHistory, ragged_places
from sglang_hetero_spec.worker.stopwatch import DRAFT_FORWARDS
from sglang_hetero_spec.worker.verify_input import irregular_tree_input, tree_mask
from sglang_hetero_spec.worker.written_slots import WrittenSlots

if TYPE_CHECKING:
    from sglang.srt.model_executor.model_runner import ModelRunner, ModelRunnerOutput
    from sglang.srt.speculative.spec_info import SpecInput

    from sglang_hetero_spec.cuda.graphs.draft_graphs import DraftGraphs
    from sglang_hetero_spec.worker.lora import AtWork, ServedAdapters

# Tokens behind the root whose places are found together: launches cost the host more than numbers cost the device.
PLACES_AHEAD = 8
# Tokens that one catch-up forward reads at most: bounds activation memory when long prompts join at once.
CATCH_UP_TOKENS = 4096


@dataclass(frozen=True)
class Lens:
    """Sequence lengths of a forward, [b] int64: on the device, and on the host where a backend plans with them."""

    device: torch.Tensor
    host: torch.Tensor | None

    @classmethod
    def of(cls, batch: DraftBatch, rule: Callable[[torch.Tensor], torch.Tensor]) -> Lens:
        host = batch.seq_lens_cpu
        return cls(device=rule(batch.seq_lens), host=None if host is None else rule(host))

    def plus(self, number: int) -> Lens:
        return Lens(self.device + number, None if self.host is None else self.host + number)

    @property
    def total(self) -> int | None:
        return None if self.host is None else int(self.host.sum())


@dataclass(frozen=True)
class PlacesAhead:
    """Of the tokens behind the roots of a batch, from offset `first` on: positions, slots, and lengths with each token,
    [PLACES_AHEAD, b] int64."""

    batch: DraftBatch
    first: int
    positions: torch.Tensor
    slots: torch.Tensor
    lens: Lens


@dataclass(frozen=True)
class SharedState:
    """What all drafters of a worker share: the target's slot table, and what is known of the requests."""

    req_to_token: torch.Tensor  # [rows, max_len] int32, the slot of each token
    history: TokenHistory
    written: WrittenSlots


@dataclass(frozen=True)
class Head:
    """Which logits are wanted. size: how many, from id 0; ids: [size] int64, the only ones, in this order, or None."""

    size: int
    ids: torch.Tensor | None = None


class SGLangDraftModel:
    """`drafters.base.DraftModel` on an SGLang ModelRunner.

    drafter: the drafter's number in `SharedState.written`. adapters: of this model, where it has any: then a batch's
    requests may be of other drafters than this one (DraftBatch.drafters).
    """

    # Bytes that are kept of every token beside its keys and values.
    hidden_cell_bytes = 0
    adapters: ServedAdapters | None = None
    graphs: DraftGraphs | None = None

    def __init__(self, drafter: int, runner: ModelRunner, head: Head) -> None:
        self.drafter = drafter
        self.runner = runner
        self.head = head
        if head.ids is not None:
            prune_head(runner, head.ids)
        self._shared: SharedState | None = None
        self._ahead: PlacesAhead | None = None

    def attach(self, shared: SharedState) -> None:
        """Called once the pools exist."""
        self._shared = shared

    @property
    def shared(self) -> SharedState:
        if self._shared is None:
            raise RuntimeError("A draft model was used before its KV pool was allocated.")
        return self._shared

    @property
    def together(self) -> Hashable:
        """Models of equal value read together: any of them for all (drafters.base.DraftModel)."""
        return id(self)

    def writers(self, batch: DraftBatch) -> int | tuple[int, ...]:
        """Number of the drafter that reads the tokens, or of each request's."""
        return self.drafter if batch.drafters is None else batch.drafters

    def adapters_of(self, batch: DraftBatch) -> AtWork | None:
        return None if self.adapters is None else self.adapters.of(batch.drafters)

    def _during(self, work: AtWork | None) -> AbstractContextManager[None]:
        return nullcontext() if self.adapters is None else self.adapters.during(work)

    def catch_up(self, batch: DraftBatch, window: int) -> None:
        rows = batch.rows[from_host(batch.newcomers, batch.rows.device)]
        ends = [max(length - window + 1, 0) for length in batch.newcomer_lens]
        slots = self.shared.req_to_token[rows, : max(ends)]
        everyone = batch.drafters or (self.drafter,) * len(batch.rows)
        writers = [everyone[number] for number in batch.newcomers]
        starts = self.shared.written.leading_run(writers, slots, ends)
        for members, lo, hi in chunks(starts, ends, CATCH_UP_TOKENS):
            self.read_range(rows[from_host(members, rows.device)], lo, hi, [writers[member] for member in members])

    def read_window(self, batch: DraftBatch, window: int) -> torch.Tensor:
        if self.graphs is not None:
            window = self.graphs.width_for("window", window, len(batch.rows))
        prefixes = Lens.of(batch, lambda lens: (lens - (window - 1)).clamp(min=0))
        starts = prefixes.device
        positions = starts.unsqueeze(1) + kept_on_device(range(window), starts.device)
        rows = batch.rows.unsqueeze(1)
        slots = self._slots(rows, positions)
        self.shared.written.mark(self.writers(batch), slots, positions <= batch.seq_lens.unsqueeze(1))
        root = batch.seq_lens - starts
        forward_batch = self._forward_batch(
            ForwardMode.DRAFT_EXTEND_V2,
            batch.rows,
            tokens=self.shared.history.read(rows, positions).flatten(),
            positions=positions.flatten(),
            slots=slots.flatten(),
            seq_lens=prefixes.plus(window),
            spec_info=_window_input(root, window),
        )
        _set_uniform_extend(forward_batch, prefixes, window)
        return self._logits(forward_batch, self.adapters_of(batch))

    def read_next(self, batch: DraftBatch, tokens: torch.Tensor, offset: int) -> torch.Tensor:
        ahead = self._places_ahead(batch, offset)
        row = offset - ahead.first
        forward_batch = self._forward_batch(
            ForwardMode.DECODE,
            batch.rows,
            tokens=tokens,
            positions=ahead.positions[row],
            slots=ahead.slots[row],
            seq_lens=Lens(ahead.lens.device[row], None if ahead.lens.host is None else ahead.lens.host[row]),
        )
        return self._logits(forward_batch, self.adapters_of(batch))

    def _places_ahead(self, batch: DraftBatch, offset: int) -> PlacesAhead:
        known = self._ahead
        if known is None or known.batch is not batch or not 0 <= offset - known.first < PLACES_AHEAD:
            offsets = range(offset, offset + PLACES_AHEAD)
            positions = batch.seq_lens + kept_on_device(offsets, batch.seq_lens.device).unsqueeze(1)
            host = batch.seq_lens_cpu
            ends = None if host is None else host + torch.tensor(offsets).unsqueeze(1) + 1
            slots = self._slots(batch.rows, positions)
            known = self._ahead = PlacesAhead(batch, offset, positions, slots, Lens(positions + 1, ends))
        return known

    def read_tree(self, batch: DraftBatch, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        number = tokens.shape[1]
        if self.graphs is not None:
            tokens, parents = self._padded(tokens, parents)
        batch_size, width = tokens.shape
        lens = Lens.of(batch, lambda lens: lens + 1)
        prefix_lens = lens.device
        ancestors, depths = ancestors_of(parents)
        nodes = kept_on_device(range(width), tokens.device)
        slots = self._slots(batch.rows.unsqueeze(1), prefix_lens.unsqueeze(1) + nodes)
        mask = tree_mask(ancestors, prefix_lens, lens.total or 0, default_tree_mask_mode())
        forward_batch = self._forward_batch(
            ForwardMode.TARGET_VERIFY,
            batch.rows,
            tokens=tokens.flatten(),
            positions=(prefix_lens.unsqueeze(1) + depths).flatten(),
            slots=slots.flatten(),
            seq_lens=lens,
            spec_info=irregular_tree_input(tokens.flatten(), mask, width, lens.host),
        )
        return self._logits(forward_batch, self.adapters_of(batch)).view(batch_size, width, -1)[:, :number]

    def _padded(self, tokens: torch.Tensor, parents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """With nodes that nobody asked for, up to the width of a captured graph. They are behind the others, and write
        where the proposal's last level will."""
        assert self.graphs is not None
        number, width = tokens.shape
        more = self.graphs.width_for("tree", width, number) - width
        if not more:
            return tokens, parents
        return F.pad(tokens, (0, more)), F.pad(parents, (0, more), value=NO_NODE)

    def read_range(
        self, rows: torch.Tensor, starts: list[int], ends: list[int], writers: Sequence[int] | None = None
    ) -> None:
        """Read the committed tokens [start, end) of each row and keep nothing but their KV.

        writers: the drafter that each row is read by; None: this one.
        """
        lens = [end - start for start, end in zip(starts, ends, strict=True)]
        flat_rows, positions = ragged_places(rows, starts, lens, rows.device)
        slots = self._slots(flat_rows, positions)
        ends_tensor = torch.tensor(ends, dtype=torch.int64)
        forward_batch = self._forward_batch(
            ForwardMode.EXTEND,
            rows,
            tokens=self.shared.history.read(flat_rows, positions),
            positions=positions,
            slots=slots,
            seq_lens=Lens(device=from_host(ends_tensor, rows.device), host=ends_tensor),
        )
        forward_batch.extend_num_tokens = sum(lens)
        forward_batch.extend_seq_lens_cpu = lens
        forward_batch.extend_prefix_lens_cpu = list(starts)
        forward_batch.extend_seq_lens = from_host(lens, rows.device, torch.int32)
        forward_batch.extend_prefix_lens = from_host(starts, rows.device, torch.int32)
        forward_batch.extend_start_loc = forward_batch.extend_seq_lens.cumsum(0, dtype=torch.int32)
        forward_batch.extend_start_loc -= forward_batch.extend_seq_lens
        work = None if self.adapters is None else self.adapters.of(writers)
        with self._during(None if work is None else work.repeated(lens)):
            self._forward(forward_batch)
        if writers is None:
            self.shared.written.mark(self.drafter, slots)
        else:
            each = [writer for writer, length in zip(writers, lens, strict=True) for _ in range(length)]
            self.shared.written.mark(each, slots)

    def _slots(self, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        table = self.shared.req_to_token
        return table[rows, positions.clamp(max=table.shape[1] - 1)].to(torch.int64)

    def _forward_batch(
        self,
        mode: ForwardMode,
        rows: torch.Tensor,
        *,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
        seq_lens: Lens,
        spec_info: SpecInput | None = None,
    ) -> ForwardBatch:
        """seq_lens: as attention backends want them in this mode: the prefix alone for TARGET_VERIFY, with the
        new tokens for every other."""
        runner = self.runner
        forward_batch = ForwardBatch(
            forward_mode=mode,
            batch_size=rows.shape[0],
            input_ids=tokens.clamp(max=runner.model_config.vocab_size - 1),
            req_pool_indices=rows,
            seq_lens=seq_lens.device,
            out_cache_loc=slots,
            seq_lens_sum=seq_lens.total,
            seq_lens_cpu=seq_lens.host,
            orig_seq_lens=seq_lens.device,
            positions=positions,
            spec_algorithm=runner.spec_algorithm,
            spec_info=spec_info,
            capture_hidden_mode=CaptureHiddenMode.NULL,
        )
        translator = runner.kv_index_translator
        translator.own_plan(forward_batch).bind(forward_batch, translator)
        forward_batch._init_num_token_non_padded(device=runner.device, is_draft_worker=True)
        return forward_batch

    def _logits(self, forward_batch: ForwardBatch, work: AtWork | None = None) -> torch.Tensor:
        logits = self._replayed(forward_batch, work)
        if logits is None:
            with self._during(work):
                logits = self._forward(forward_batch).logits_output.next_token_logits
        if self.head.ids is not None and logits.shape[1] != self.head.size:
            if self.head.ids.device != logits.device:
                self.head = replace(self.head, ids=self.head.ids.to(logits.device))
            return logits[:, self.head.ids]
        return logits[:, : self.head.size]

    @DRAFT_FORWARDS.timed
    def _replayed(self, forward_batch: ForwardBatch, work: AtWork | None) -> torch.Tensor | None:
        """By a CUDA graph; None where none holds the batch."""
        return None if self.graphs is None else self.graphs.run(forward_batch, work)

    @DRAFT_FORWARDS.timed
    def _forward(self, forward_batch: ForwardBatch) -> ModelRunnerOutput:
        return self.runner.forward(forward_batch)


class PrunedHead(torch.nn.Module):
    """Some rows of a model's LM head, as SGLang's logits processor wants it (layers/logits_processor.py)."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight, requires_grad=False)


def prune_head(runner: ModelRunner, ids: torch.Tensor) -> None:
    """Leave the head of the runner's model only the rows `ids`; embeddings that are tied to it keep theirs.

    A head that is not a plain matrix of its own (Gemma reads its embeddings, a quantised one has packed weights) stays:
    then logits are computed for all, and those of `ids` are taken.
    """
    head = getattr(runner.model, "lm_head", None)
    weight = getattr(head, "weight", None)
    if weight is not None and weight.is_floating_point() and weight.dim() == 2:
        runner.model.lm_head = PrunedHead(weight.data[ids.to(weight.device)])


def _window_input(root: torch.Tensor, window: int) -> EagleDraftExtendInput:
    """root: [b], the root's place within its window: the only row whose logits are wanted."""
    batch_size = root.shape[0]
    first_rows = kept_on_device(range(0, batch_size * window, window), root.device)
    return EagleDraftExtendInput(
        num_correct_drafts=root,
        num_accept_tokens=root + 1,
        num_tokens_per_req=window,
        num_tokens_for_logprob_per_req=window,
        capture_hidden_mode=CaptureHiddenMode.NULL,
        select_index=first_rows + root,
    )


def _set_uniform_extend(forward_batch: ForwardBatch, prefixes: Lens, width: int) -> None:
    """Every request extends by `width` tokens behind its prefix; FlashInfer wants the prefixes on the host too."""
    starts = prefixes.device
    batch_size = starts.shape[0]
    if prefixes.host is not None:
        forward_batch.extend_prefix_lens_cpu = prefixes.host.tolist()
    forward_batch.extend_num_tokens = batch_size * width
    forward_batch.extend_seq_lens_cpu = [width] * batch_size
    forward_batch.extend_seq_lens = kept_on_device([width] * batch_size, starts.device, torch.int32)
    forward_batch.extend_prefix_lens = starts.to(torch.int32)
    first_rows = range(0, batch_size * width, width)
    forward_batch.extend_start_loc = kept_on_device(first_rows, starts.device, torch.int32)


def chunks(starts: list[int], ends: list[int], max_tokens: int) -> Iterator[tuple[list[int], list[int], list[int]]]:
    """Cut the ranges [start, end) into forwards of at most max_tokens: (members, starts, ends), none empty.

    A range is cut where it must be; its parts come in order, in different forwards.
    """
    members: list[int] = []
    los: list[int] = []
    his: list[int] = []
    room = max_tokens
    for member, (start, end) in enumerate(zip(starts, ends, strict=True)):
        while start < end:
            stop = min(end, start + room)
            members.append(member)
            los.append(start)
            his.append(stop)
            room -= stop - start
            start = stop
            if room == 0:
                yield members, los, his
                members, los, his, room = [], [], [], max_tokens
    if members:
        yield members, los, his
