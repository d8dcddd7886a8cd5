"""A decoder layer of transformers as SGLang fuses it: the parts that worker.cpu_llama reads."""

from __future__ import annotations

from types import SimpleNamespace

import torch


def as_sglang_layer(layer: torch.nn.Module, number: int, rotary: object) -> SimpleNamespace:
    """number: the layer's place in the model, and in its KV pool. rotary: what the attention has of positions."""
    attention, mlp = layer.self_attn, layer.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    has_bias = projections[0].bias is not None
    head_dim = attention.head_dim
    q_size, kv_size = attention.q_proj.out_features, attention.k_proj.out_features
    return SimpleNamespace(
        input_layernorm=layer.input_layernorm,
        post_attention_layernorm=layer.post_attention_layernorm,
        self_attn=SimpleNamespace(
            num_heads=q_size // head_dim,
            num_kv_heads=kv_size // head_dim,
            head_dim=head_dim,
            scaling=head_dim**-0.5,
            q_size=q_size,
            kv_size=kv_size,
            rotary_emb=rotary,
            qkv_proj=SimpleNamespace(
                weight=torch.cat([p.weight for p in projections]),
                bias=torch.cat([p.bias for p in projections]) if has_bias else None,
            ),
            o_proj=attention.o_proj,
            attn=SimpleNamespace(layer_id=number),
        ),
        mlp=SimpleNamespace(
            gate_up_proj=SimpleNamespace(weight=torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight))),
            down_proj=mlp.down_proj,
        ),
    )
