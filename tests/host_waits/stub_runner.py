"""A model runner of SGLang's whose model is none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from tests.host_waits.fake_device import DEVICE


class StubRunner:
    """Of a model whose logits say the same id as was read."""

    def __init__(self, vocab_size: int) -> None:
        self.device = str(DEVICE)
        self.model = torch.nn.Module()
        self.model_config = SimpleNamespace(vocab_size=vocab_size)
        self.spec_algorithm = None
        plan = SimpleNamespace(bind=lambda *_: None)
        self.kv_index_translator = SimpleNamespace(own_plan=lambda _: plan)

    def forward(self, forward_batch: Any) -> SimpleNamespace:
        ids = forward_batch.input_ids
        picked = getattr(forward_batch.spec_info, "select_index", None)
        ids = ids if picked is None else ids[picked]
        logits = torch.nn.functional.one_hot(ids % self.model_config.vocab_size, self.model_config.vocab_size).float()
        return SimpleNamespace(logits_output=SimpleNamespace(next_token_logits=logits))
