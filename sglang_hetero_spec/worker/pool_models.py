"""The models of a pool's drafters, loaded by SGLang, and whatever else drafters are built from."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import torch

from sglang_hetero_spec.drafters.growing import chain_room
from sglang_hetero_spec.errors import first_line
from sglang_hetero_spec.pool import DrafterSpec, Pool
from sglang_hetero_spec.pool.adapter import read_adapter_config
from sglang_hetero_spec.vocab.mid_text import MidText
from sglang_hetero_spec.vocab.pairing import Pairing
from sglang_hetero_spec.worker.budget import draft_cell_bytes
from sglang_hetero_spec.worker.committed import CommittedTokens
from sglang_hetero_spec.worker.cpu_draft_model import build_draft_model, group_models
from sglang_hetero_spec.worker.draft_model import Head, SGLangDraftModel, SharedState
from sglang_hetero_spec.worker.foreign import check_fit, pair_with_target
from sglang_hetero_spec.worker.loading import DraftWorkers, native_context
from sglang_hetero_spec.worker.lora import ServedAdapters
from sglang_hetero_spec.worker.own_sequences import OwnSequences
from sglang_hetero_spec.worker.sorted_model import SortedCpuModel, build_sorted_model, cut_layers

logger = logging.getLogger(__name__)


class PoolModels:
    """drafters.registry.DrafterHost. by_name: the models, by the names of their drafters; pool: as it is served now;
    cell_bytes: what all of them keep of a token of the target."""

    def __init__(
        self, pool: Pool, workers: DraftWorkers, target_folder: Path | None, target_vocab_size: int, device: str
    ) -> None:
        self.pool = pool
        self.target_vocab_size = target_vocab_size
        self.device = device
        self.by_name: dict[str, SGLangDraftModel] = {}
        self.cell_bytes = 0
        self._workers = workers
        self._target_folder = target_folder
        self._sequences: dict[str, OwnSequences] = {}
        self._own_tokenizers: dict[str, MidText] = {}
        self._committed = CommittedTokens()

    @property
    def leaves_layers(self) -> bool:
        return self.device == "cpu"

    def draft_model(self, spec: DrafterSpec) -> SGLangDraftModel:
        runner = self._workers.load(spec)
        if spec.exits:
            logger.warning(
                "HETERO: drafter %s is of kind `sorted`; leaving early is for a CPU, so here each of its drafts goes"
                " through all %d layers.",
                spec.name,
                spec.exits[-1],
            )
            cut_layers(runner, spec.exits[-1])
        model = build_draft_model(
            drafter=self.number(spec),
            runner=runner,
            head=Head(self.target_vocab_size),
            room=chain_room(spec),
        )
        self.by_name[spec.name] = model
        self.cell_bytes += draft_cell_bytes(model.runner)
        return model

    def sorted_model(self, spec: DrafterSpec) -> SortedCpuModel:
        model = build_sorted_model(
            spec=spec,
            drafter=self.number(spec),
            runner=self._workers.load(spec),
            head=Head(self.target_vocab_size),
            room=chain_room(spec),
        )
        self.by_name[spec.name] = model
        self.cell_bytes += draft_cell_bytes(model.runner) + model.hidden_cell_bytes
        return model

    def adapted_model(self, spec: DrafterSpec) -> SGLangDraftModel:
        assert spec.base is not None and spec.path is not None, "an adapter has both"
        model = self.by_name[spec.base]
        if model.adapters is None:
            model.adapters = ServedAdapters(model.runner, spec.base)
        model.adapters.add(self.number(spec), spec.path, read_adapter_config(spec.path, f"drafter {spec.name}").scale)
        self._capture_again(model)
        return model

    def drop_adapter(self, spec: DrafterSpec) -> None:
        assert spec.base is not None
        model = self.by_name[spec.base]
        model.adapters.remove(self.number(spec))
        self._capture_again(model)

    @staticmethod
    def _capture_again(model: SGLangDraftModel) -> None:
        """Graphs read the weights of the adapters that there were."""
        if model.graphs is None:
            return
        try:
            model.graphs.recapture(model.adapters)
        except Exception as error:
            model.graphs.forget()
            logger.warning(
                "HETERO: adapters changed and CUDA graphs could not be captured again (%s); their base drafts without"
                " graphs until the server restarts.",
                first_line(error),
            )

    def sequences(
        self, spec: DrafterSpec, pairing: Pairing, room: int, logit_ids: torch.Tensor | None = None
    ) -> OwnSequences:
        slots_per_token = pairing.shared.draft_tokens_per_target_token
        runner = self._workers.load(spec, slots_per_token)
        # Rows that the tokenizer's table knows: SLRS's law has a column for each.
        size = len(pairing.draft.table) if logit_ids is None else len(logit_ids)
        model = build_draft_model(drafter=0, runner=runner, head=Head(size, logit_ids), room=room)
        self.by_name[spec.name] = model
        self._sequences[spec.name] = OwnSequences(model)
        self._own_tokenizers[spec.name] = pairing.draft
        self.cell_bytes += math.ceil(slots_per_token * draft_cell_bytes(runner))
        return self._sequences[spec.name]

    def number(self, spec: DrafterSpec) -> int:
        return self.pool.drafter_index(spec.name)

    def kv_pool(self, spec: DrafterSpec) -> int:
        """Adapters write into the KV pool of their base."""
        return self.pool.drafter_index(spec.base or spec.name)

    def native_context(self, spec: DrafterSpec) -> int | None:
        return native_context(spec if spec.base is None else self.pool.drafter(spec.base))

    def pairing(self, spec: DrafterSpec) -> Pairing:
        return pair_with_target(spec, self._target_folder, self.target_vocab_size)

    def committed_tokens(self) -> CommittedTokens:
        return self._committed

    def attach(self, shared: SharedState) -> None:
        """Called once the KV pools exist."""
        self._committed.attach(shared.history)
        for name, model in self.by_name.items():
            if name in self._sequences:
                self._sequences[name].attach(shared.history)
            else:
                model.attach(shared)
        group_models(model for name, model in self.by_name.items() if name not in self._sequences)

    def has_own_sequences(self, name: str) -> bool:
        return name in self._sequences

    def check_tokenizers(self) -> None:
        """Whether each model with a vocabulary of its own knows the tokenizer beside it; a warning where not."""
        for name, draft in self._own_tokenizers.items():
            check_fit(self.pool.drafter(name), self._sequences[name], draft, self.device)
        self._own_tokenizers.clear()
