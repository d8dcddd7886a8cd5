"""A Llama-type draft model on CPU, in the fewest PyTorch calls.

A draft model is so small that on a CPU its forward is all overhead: SGLang's layers take about 1 ms for work of
0.1 ms, and a batch whose requests have six drafters pays that six times in every draft step. This forward uses the
weights and the KV pool that SGLang loaded and made, and nothing else of it. Keys and values of a batch are gathered
once per proposal into dense tensors, and every token read is written to both.

It serves drafts only: what it computes decides how many tokens are accepted, never which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from sglang.srt.runtime_context import get_parallel

from sglang_hetero_spec.worker.stopwatch import DRAFT_FORWARDS

if TYPE_CHECKING:
    from sglang.srt.model_executor.model_runner import ModelRunner

    from sglang_hetero_spec.worker.lora import AtWork

# The exact classes of sglang.srt.models whose decoder layers are the ones written out in `_layer`.
ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")


@dataclass(frozen=True)
class LayerWeights:
    """One decoder layer: weights as SGLang fuses them, and its KV pool [slots, kv heads, head size].

    In worker.grouped_llama a weight is one of each model (`GroupedLlama._of_each`), norms are [b, 1, hidden].
    """

    input_norm: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    output: torch.Tensor
    output_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor
    key_pool: torch.Tensor
    value_pool: torch.Tensor

    @property
    def num_weights(self) -> int:
        return self.qkv.numel() + self.output.numel() + self.gate_up.numel() + self.down.numel()


@dataclass(frozen=True)
class GatheredKV:
    """Keys and values of b requests, one pair [b, C, kv heads, head size] per layer read; column i is token i."""

    members: torch.Tensor  # [b, 1], 0..b-1
    columns: torch.Tensor  # [C], 0..C-1
    layers: list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Tokens:
    """Tokens to read, all [b, w] int64. columns: where in GatheredKV they go; slots: where in the pools.

    visible: [b, 1, w, C] bool, what each of them attends to, itself among it.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    columns: torch.Tensor
    slots: torch.Tensor
    visible: torch.Tensor


@dataclass(frozen=True)
class _Linear:
    """The linear layers of decoder layer `number`, with what the requests' adapters add to them."""

    number: int
    lora: AtWork | None
    product: Callable[..., torch.Tensor]

    def __call__(
        self, name: str, read: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        output = self.product(read, weight, bias)
        if self.lora is not None:
            self.lora.add(self.number, name, output, read)
        return output


class CpuLlama:
    """runner: a loaded SGLang runner with its KV pool, for which `supports` holds. vocab_size: logits per token."""

    def __init__(self, runner: ModelRunner, vocab_size: int) -> None:
        model = runner.model
        attention = model.model.layers[0].self_attn
        self.num_heads, self.num_kv_heads = attention.num_heads, attention.num_kv_heads
        self.head_dim, self.scaling = attention.head_dim, attention.scaling
        self._sizes = [attention.q_size, attention.kv_size, attention.kv_size]
        self._cos_sin = attention.rotary_emb.cos_sin_cache
        self._eps = model.config.rms_norm_eps
        self._embeddings = model.model.embed_tokens.weight
        self._final_norm = model.model.norm.weight
        self._head = model.lm_head.weight[:vocab_size]
        self._layers = [_layer_weights(layer, runner.token_to_kv_pool) for layer in model.model.layers]
        self.hidden_size, self.dtype = self._embeddings.shape[1], self._embeddings.dtype
        self.operations_per_token = self.operations(slice(None))

    def operations(self, layers: slice) -> int:
        """Of one token through these layers and the head: a multiplication and an addition per weight; attention left
        out."""
        return 2 * (self._head.numel() + sum(layer.num_weights for layer in self._layers[layers]))

    @DRAFT_FORWARDS.timed
    def gather(self, slots: torch.Tensor, layers: slice = slice(None)) -> GatheredKV:
        """slots: [b, C] int64. Columns whose slot is not the request's yet hold anything, and are not visible."""
        batch_size, width = slots.shape
        return GatheredKV(
            members=torch.arange(batch_size).unsqueeze(1),
            columns=torch.arange(width),
            layers=[self._gathered(layer, slots) for layer in self._layers[layers]],
        )

    @DRAFT_FORWARDS.timed
    def read(self, tokens: Tokens, kv: GatheredKV, lora: AtWork | None = None) -> torch.Tensor:
        """Write the tokens' keys and values everywhere; their last hidden states, [b, w, hidden], normed.

        lora: the requests' adapters; None where all have the model's own weights.
        """
        return self.normed(self.read_layers(self.embed(tokens.ids), tokens, kv, lora=lora))

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self._embeddings[ids]

    @DRAFT_FORWARDS.timed
    def read_layers(
        self,
        hidden: torch.Tensor,
        tokens: Tokens,
        kv: GatheredKV,
        layers: slice = slice(None),
        lora: AtWork | None = None,
    ) -> torch.Tensor:
        """Through these layers, for which `kv` was gathered; hidden: [b, w, hidden], in front of the first of them."""
        cos, sin = self._cos_sin[tokens.positions].to(hidden.dtype).unsqueeze(2).chunk(2, dim=-1)
        numbers = range(len(self._layers))[layers]
        for number, gathered in zip(numbers, kv.layers, strict=True):
            linear = _Linear(number, lora, self._product)
            hidden = self._layer(hidden, cos, sin, tokens, kv.members, self._layers[number], gathered, linear)
        return hidden

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._norm(hidden, self._final_norm)

    @DRAFT_FORWARDS.timed
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden: [b, ..., hidden]."""
        return self._product(hidden, self._head)

    def _norm(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(hidden, hidden.shape[-1:], weight, self._eps)

    def _product(self, read: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return F.linear(read, weight, bias)

    def _gathered(self, layer: LayerWeights, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return rows_of(layer.key_pool, slots), rows_of(layer.value_pool, slots)

    def _store(self, layer: LayerWeights, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        layer.key_pool[slots], layer.value_pool[slots] = key, value

    def _layer(
        self,
        hidden: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        tokens: Tokens,
        members: torch.Tensor,
        layer: LayerWeights,
        gathered: tuple[torch.Tensor, torch.Tensor],
        linear: _Linear,
    ) -> torch.Tensor:
        normed = self._norm(hidden, layer.input_norm)
        query, key, value = linear("qkv_proj", normed, layer.qkv, layer.qkv_bias).split(self._sizes, dim=-1)
        query = _rotate(query.unflatten(-1, (self.num_heads, self.head_dim)), cos, sin)
        key = _rotate(key.unflatten(-1, (self.num_kv_heads, self.head_dim)), cos, sin)
        value = value.unflatten(-1, (self.num_kv_heads, self.head_dim))
        self._store(layer, tokens.slots, key, value)
        keys, values = gathered
        keys[members, tokens.columns], values[members, tokens.columns] = key, value
        attended = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=tokens.visible,
            scale=self.scaling,
            enable_gqa=self.num_heads != self.num_kv_heads,
        )
        hidden = hidden + linear("o_proj", attended.transpose(1, 2).flatten(2), layer.output)
        normed = self._norm(hidden, layer.output_norm)
        gate, up = linear("gate_up_proj", normed, layer.gate_up).chunk(2, dim=-1)
        return hidden + linear("down_proj", F.silu(gate) * up, layer.down)


def supports(runner: ModelRunner) -> bool:
    """Whether this forward is the runner's model: plain weights, SiLU, rotary embedding over whole heads, one rank."""
    model, config = runner.model, runner.model_config.hf_config
    if runner.device != "cpu" or get_parallel().tp_size != 1 or type(model).__name__ not in ARCHITECTURES:
        return False
    attention = model.model.layers[0].self_attn
    rotary = attention.rotary_emb
    return (
        runner.model_config.quantization is None
        and config.hidden_act == "silu"
        and runner.sliding_window_size in (None, -1)
        and rotary.is_neox_style
        and rotary.rotary_dim == attention.head_dim
        and runner.kv_cache_dtype == runner.dtype
        and type(attention.qkv_proj.quant_method).__name__ == "UnquantizedLinearMethod"
        and attention.qkv_proj.weight.shape[1] == config.hidden_size
    )


def _layer_weights(layer: torch.nn.Module, pool: object) -> LayerWeights:
    attention, mlp = layer.self_attn, layer.mlp
    return LayerWeights(
        input_norm=layer.input_layernorm.weight,
        qkv=attention.qkv_proj.weight,
        qkv_bias=attention.qkv_proj.bias,
        output=attention.o_proj.weight,
        output_norm=layer.post_attention_layernorm.weight,
        gate_up=mlp.gate_up_proj.weight,
        down=mlp.down_proj.weight,
        key_pool=pool.get_key_buffer(attention.attn.layer_id),
        value_pool=pool.get_value_buffer(attention.attn.layer_id),
    )


def rows_of(pool: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """pool[slots]; index_select copies whole rows, which indexing does not."""
    return pool.index_select(0, slots.flatten()).unflatten(0, slots.shape)


def _rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding, halves paired (neox style). heads: [b, w, n, d]; cos, sin: [b, w, 1, d/2]."""
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
