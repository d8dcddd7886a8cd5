"""A drafter of tests/models at work without a server: its weights in the CPU forward, requests of any length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import sglang_hetero_spec
from sglang_hetero_spec.drafters.base import DraftBatch
from sglang_hetero_spec.drafters.growing import chain_room
from sglang_hetero_spec.drafters.sequences import Sequences
from sglang_hetero_spec.pool import DrafterSpec
from sglang_hetero_spec.vocab.pairing import Pairing, pair
from tests.support.sglang_layers import as_sglang_layer

TARGET = Path(sglang_hetero_spec.__file__).parent / "demo" / "assets" / "target"
MODELS = Path(__file__).resolve().parents[1] / "tests" / "models"
NUM_STEPS = 4
ROWS, MAX_LEN = 17, 20_000


def spec_of(vocab: str, num_steps: int = NUM_STEPS) -> DrafterSpec:
    return DrafterSpec("d", "standalone", None, vocab, num_steps, 1, num_steps + 1)


def pairing_with(name: str) -> Pairing:
    return pair(TARGET, MODELS / name)


# A draft model of common shape, with random weights: 15M parameters beside its embeddings.
LARGER = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 5, "num_attention_heads": 8}
LARGER |= {"num_key_value_heads": 4, "head_dim": 64}


def runner_of(name: str, num_slots: int, larger: bool = False) -> SimpleNamespace:
    """The parts of an SGLang runner that CpuLlama reads. larger: the vocabulary of that drafter in a larger model."""
    config = AutoConfig.from_pretrained(MODELS / name)
    if larger:
        config.update(LARGER)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    else:
        model = AutoModelForCausalLM.from_pretrained(MODELS / name, dtype=torch.float32)
    cos, sin = model.model.rotary_emb(torch.zeros(1), torch.arange(MAX_LEN).unsqueeze(0))
    half = config.head_dim // 2
    rotary = SimpleNamespace(cos_sin_cache=torch.cat((cos[0, :, :half], sin[0, :, :half]), dim=-1))
    shape = (num_slots, config.num_key_value_heads, config.head_dim)
    pools = [(torch.zeros(shape), torch.zeros(shape)) for _ in model.model.layers]
    layers = [as_sglang_layer(layer, number, rotary) for number, layer in enumerate(model.model.layers)]
    inner = SimpleNamespace(layers=layers, embed_tokens=model.model.embed_tokens, norm=model.model.norm)
    table = torch.arange(ROWS * MAX_LEN, dtype=torch.int32).view(ROWS, MAX_LEN) % num_slots
    return SimpleNamespace(
        model=SimpleNamespace(config=config, lm_head=model.lm_head, model=inner),
        model_config=SimpleNamespace(vocab_size=config.vocab_size, model_path=name),
        page_size=1,
        token_to_kv_pool=SimpleNamespace(
            size=num_slots, get_key_buffer=lambda i: pools[i][0], get_value_buffer=lambda i: pools[i][1]
        ),
        req_to_token_pool=SimpleNamespace(req_to_token=table),
    )


def batch_of(texts: list[list[int]], newcomers: bool) -> DraftBatch:
    """texts: target ids of each request, the root last."""
    lens = [len(text) - 1 for text in texts]
    everyone = tuple(range(len(texts))) if newcomers else ()
    return DraftBatch(
        rows=torch.arange(1, len(texts) + 1),
        seq_lens=torch.tensor(lens),
        root_tokens=torch.tensor([text[-1] for text in texts]),
        newcomers=everyone,
        newcomer_lens=tuple(lens) if newcomers else (),
        rids=tuple(map(str, range(len(texts)))),
    )


def room_of(vocab: str) -> int:
    return chain_room(spec_of(vocab))


def own_sequences(name: str, columns: Sequence[int] | None = None) -> Sequences:
    """Of that drafter, for which SGLang is imported. columns: the only draft ids that logits are wanted of."""
    from sglang_hetero_spec.worker.cpu_draft_model import CpuDraftModel
    from sglang_hetero_spec.worker.draft_model import Head
    from sglang_hetero_spec.worker.history import TokenHistory
    from sglang_hetero_spec.worker.own_sequences import OwnSequences

    runner = runner_of(name, 40_000)
    ids = None if columns is None else torch.tensor(list(columns))
    head = Head(runner.model_config.vocab_size if ids is None else len(ids), ids)
    sequences = OwnSequences(CpuDraftModel(0, runner, head, NUM_STEPS + 1))
    sequences.attach(TokenHistory(ROWS, MAX_LEN, "cpu"))
    return sequences
