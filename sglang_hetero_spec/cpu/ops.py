"""What `sgl_kernel` offers when the CPU engine stands in for it: Python names and `torch.ops.sgl_kernel` ops."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sglang_hetero_spec.cpu import attention, seeded, spec_ops, tree

PYTHON_NAMES: dict[str, Callable[..., object]] = {
    "assign_draft_cache_locs_contiguous_cpu": spec_ops.assign_draft_cache_locs_contiguous,
    "assign_extend_cache_locs_cpu": spec_ops.assign_extend_cache_locs,
    "assign_req_to_token_pool_cpu": spec_ops.assign_req_to_token_pool,
    "build_draft_decode_metadata_cpu": spec_ops.build_draft_decode_metadata,
    "build_tree_kernel_efficient_cpu": tree.build_tree_kernel_efficient,
    "copy_all_layer_kv_cache_cpu": spec_ops.copy_all_layer_kv_cache,
    "fill_accept_out_cache_loc_cpu": spec_ops.fill_accept_out_cache_loc,
    "fill_bonus_tokens_cpu": spec_ops.fill_bonus_tokens,
    "rotate_input_ids_cpu": spec_ops.rotate_input_ids,
    "verify_tree_greedy_cpu": tree.verify_tree_greedy,
}

_SCHEMAS: dict[str, tuple[str, Callable[..., object]]] = {
    "extend_attention_cpu": (
        "(Tensor q_extend, Tensor? k_extend, Tensor? v_extend, Tensor(a!) o_extend, Tensor k_buffer, Tensor v_buffer,"
        " float k_scale, float v_scale, Tensor req_to_token, Tensor req_pool_indices, Tensor seq_lens,"
        " Tensor extend_seq_lens, Tensor extend_start_loc, int max_len_extend, float sm_scale, float logit_cap,"
        " bool is_cross_attn, int sliding_window_size, Tensor? encoder_lens, Tensor? sinks, Tensor? tree_mask=None,"
        " bool is_causal=True) -> ()",
        attention.extend_attention,
    ),
    "decode_attention_cpu": (
        "(Tensor query, Tensor(a!) k_buffer, Tensor(b!) v_buffer, float k_scale, float v_scale, Tensor(c!) output,"
        " Tensor? key, Tensor? value, Tensor? loc, Tensor? attn_logits, Tensor req_to_token, Tensor req_pool_indices,"
        " Tensor seq_lens, float sm_scale, float logit_cap, bool is_cross_attn, int sliding_window_size,"
        " Tensor? encoder_lens, Tensor? sinks) -> ()",
        attention.decode_attention,
    ),
    "murmur_hash32_cpu": (
        "(Tensor seed, Tensor positions, Tensor col_indices) -> Tensor",
        seeded.murmur_hash32,
    ),
}

_library: torch.library.Library | None = None


def register() -> dict[str, Callable[..., object]]:
    """Register the torch ops once in this process and return the Python-level names."""
    global _library
    if _library is None:
        _library = torch.library.Library("sgl_kernel", "FRAGMENT")
        for name, (schema, function) in _SCHEMAS.items():
            _library.define(name + schema)
            _library.impl(name, function, "CompositeExplicitAutograd")
    return dict(PYTHON_NAMES)


def unregister() -> None:
    """Take the torch ops back."""
    global _library
    if _library is not None:
        _library._destroy()
        _library = None
