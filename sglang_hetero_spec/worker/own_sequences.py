"""Own token sequences of a drafter, in a KV pool of its own: pages of slots, handed out by request.

Unlike the KV of drafters with the target's vocabulary nothing here is shared through the prefix cache: token i of one
vocabulary is not token i of the other.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Sequence

import torch

from sglang_hetero_spec.cuda.transfer import from_host
from sglang_hetero_spec.drafters.sequences import Fed
from sglang_hetero_spec.worker.committed import CommittedTokens
from sglang_hetero_spec.worker.draft_model import CATCH_UP_TOKENS, SGLangDraftModel, SharedState, chunks
from sglang_hetero_spec.worker.history import TokenHistory
from sglang_hetero_spec.worker.written_slots import WrittenSlots

# Slots that are handed out together, at least; and always whole pages of the server's attention backend.
PAGE = 32
# Tokens that a step commits as a rule; a request with more of them takes a second copy.
USUAL = 16


class OwnSequences:
    """drafters.sequences.Sequences. model: a draft model whose runner has a req_to_token pool of its own."""

    def __init__(self, model: SGLangDraftModel) -> None:
        self.model = model
        self.max_len = 0
        self._committed = CommittedTokens()
        # Least recently used first.
        self._rows: OrderedDict[str, int] = OrderedDict()
        self._pages: dict[str, list[int]] = {}

    def attach(self, target_history: TokenHistory) -> None:
        """Called once the pools exist. Slot 0 of a KV pool is nobody's, as in SGLang."""
        runner = self.model.runner
        num_slots = runner.token_to_kv_pool.size
        self._table = runner.req_to_token_pool.req_to_token
        self._committed.attach(target_history)
        device = self._table.device
        num_rows, self.max_len = self._table.shape
        self._history = TokenHistory(num_rows, self.max_len, device)
        # Which slots are written is known to the drafter; nobody reads these flags.
        written = WrittenSlots([0], num_slots, device)
        self.model.attach(SharedState(req_to_token=self._table, history=self._history, written=written))
        self._free_rows = list(range(num_rows - 1, 0, -1))
        self._page = math.lcm(PAGE, runner.page_size)
        self._free_pages = list(range(num_slots // self._page - 1, 0, -1))

    def open(self, rid: str, busy: Collection[str]) -> int | None:
        if not self._free_rows and not self._take_from_the_idle(busy):
            return None
        row = self._free_rows.pop()
        self._rows[rid], self._pages[rid] = row, []
        return row

    def row(self, rid: str) -> int | None:
        return self._rows.get(rid)

    def reserve(self, rid: str, length: int, busy: Collection[str]) -> bool:
        self._rows.move_to_end(rid)
        mine = self._pages[rid]
        wanted = -(-length // self._page) - len(mine)
        if wanted <= 0:
            return True
        idle = sum(len(pages) for rid, pages in self._pages.items() if rid not in busy)
        if len(self._free_pages) + idle < wanted:
            return False
        while len(self._free_pages) < wanted:
            self._take_from_the_idle(busy)
        new = [self._free_pages.pop() for _ in range(wanted)]
        slots = torch.tensor(new, dtype=self._table.dtype).unsqueeze(1) * self._page + torch.arange(self._page)
        slots = slots.flatten().to(self._table.dtype)
        start = len(mine) * self._page
        room = min(len(slots), self.max_len - start)
        self._table[self._rows[rid], start : start + room] = from_host(slots[:room], self._table.device, slots.dtype)
        mine += new
        return True

    def close(self, rid: str) -> None:
        if rid in self._rows:
            self._free_rows.append(self._rows.pop(rid))
            self._free_pages += self._pages.pop(rid)

    def _take_from_the_idle(self, busy: Collection[str]) -> bool:
        """From the request that was not drafted for the longest, unless all are busy."""
        idle = next((rid for rid in self._rows if rid not in busy), None)
        if idle is None:
            return False
        self.close(idle)
        return True

    def write(self, rows: Sequence[int], positions: Sequence[int], tokens: Sequence[int]) -> None:
        if tokens:
            at, columns, values = from_host(torch.tensor([rows, positions, tokens]), self._table.device)
            self._history.tokens[at, columns] = values

    def read_range(self, rows: Sequence[int], starts: Sequence[int], ends: Sequence[int]) -> None:
        device_rows = from_host(rows, self._table.device)
        for members, los, his in chunks(list(starts), list(ends), CATCH_UP_TOKENS):
            self.model.read_range(device_rows[from_host(members, self._table.device)], los, his)

    def committed(
        self, rows: torch.Tensor, seq_lens: torch.Tensor, starts: list[int], fed: Fed | None
    ) -> list[list[int]]:
        return self._committed.behind(rows, seq_lens, starts, USUAL, fed)
