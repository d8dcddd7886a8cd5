"""What HETERO does not serve with is refused by name, from the resolved arguments alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.pool import DrafterSpec
from sglang_hetero_spec.server_args import UNSUPPORTED, refuse_for_backend, refuse_unsupported

# As SGLang resolves them for a server that asks for nothing special.
SERVABLE = {
    "pp_size": 1,
    "enable_dp_attention": False,
    "attn_dp_size": 1,
    "enable_two_batch_overlap": False,
    "enable_pdmux": False,
    "disaggregation_mode": "null",
    "tokenizer_worker_num": 1,
    "enable_lora": None,
    "lora_paths": None,
    "enable_mixed_chunk": False,
    "speculative_use_rejection_sampling": False,
    "enable_hierarchical_cache": False,
    "speculative_accept_threshold_single": 1.0,
    "speculative_accept_threshold_acc": 1.0,
    "speculative_adaptive": False,
    "enable_watermark": False,
    "speculative_num_steps": None,
    "speculative_eagle_topk": None,
    "speculative_num_draft_tokens": None,
}
REFUSED = [
    ("pp_size", 2, "--pp-size"),
    ("enable_dp_attention", True, "--enable-dp-attention"),
    ("attn_dp_size", 2, "--attn-dp-size"),
    ("enable_two_batch_overlap", True, "--enable-two-batch-overlap"),
    ("enable_pdmux", True, "--enable-pdmux"),
    ("disaggregation_mode", "prefill", "--disaggregation-mode"),
    ("tokenizer_worker_num", 2, "--tokenizer-worker-num"),
    ("enable_lora", True, "--enable-lora"),
    ("lora_paths", ["a"], "--lora-paths"),
    ("enable_mixed_chunk", True, "--enable-mixed-chunk"),
    ("speculative_use_rejection_sampling", True, "--speculative-use-rejection-sampling"),
    ("enable_hierarchical_cache", True, "--enable-hierarchical-cache"),
    ("speculative_accept_threshold_single", 0.9, "--speculative-accept-threshold-single"),
    ("speculative_accept_threshold_acc", 0.9, "-acc"),
    ("speculative_adaptive", True, "--speculative-adaptive"),
    ("enable_watermark", True, "--enable-watermark"),
    ("speculative_num_steps", 3, "--speculative-num-steps"),
    ("speculative_eagle_topk", 1, "--speculative-eagle-topk"),
    ("speculative_num_draft_tokens", 4, "--speculative-num-draft-tokens"),
]


def test_plain_arguments_are_served() -> None:
    refuse_unsupported(SimpleNamespace(**SERVABLE))


@pytest.mark.parametrize(("field", "value", "flag"), REFUSED)
def test_what_cannot_be_served_is_refused_by_name(field: str, value: object, flag: str) -> None:
    with pytest.raises(HeteroError) as refused:
        refuse_unsupported(SimpleNamespace(**{**SERVABLE, field: value}))
    message = str(refused.value)
    assert flag in message and message.startswith("HETERO does not support") and "\n" not in message


def test_every_entry_of_the_list_has_a_case() -> None:
    reached = set()
    for field, value, _ in REFUSED:
        cfg = SimpleNamespace(**{**SERVABLE, field: value})
        reached |= {entry.flag for entry in UNSUPPORTED if entry.applies(cfg)}
    by_variable = {"SGLANG_ENABLE_POST_CAPTURE_KV_SIZING"}
    assert reached | by_variable == {entry.flag for entry in UNSUPPORTED}


@pytest.mark.usefixtures("sglang")
def test_the_arguments_are_sglangs_and_its_defaults_are_served() -> None:
    from sglang.srt.server_args import ServerArgs

    raw = ServerArgs(model_path="any")
    for field, value in SERVABLE.items():
        assert getattr(raw, field) == value, field
    refuse_unsupported(raw)


def test_a_pool_that_would_grow_without_its_drafters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_ENABLE_POST_CAPTURE_KV_SIZING", "1")
    with pytest.raises(HeteroError, match="HETERO does not support SGLANG_ENABLE_POST_CAPTURE_KV_SIZING yet"):
        refuse_unsupported(SimpleNamespace(**SERVABLE))


CHAIN = DrafterSpec("code", "standalone", None, "shared", 4, 1, 5)
TREE = DrafterSpec("words", "standalone", None, "shared", 3, 4, 9)


def check_backend(drafter: DrafterSpec, merged: int | None = None, device: str = "cuda", **named: str) -> None:
    names = ("attention_backend", "prefill_attention_backend", "decode_attention_backend")
    names += ("speculative_draft_attention_backend",)
    cfg = SimpleNamespace(device=device, **(dict.fromkeys(names) | named))
    refuse_for_backend(cfg, SimpleNamespace(drafters=(drafter,), merged_draft_tokens=merged))


def test_any_backend_reads_chains_and_ours_read_trees() -> None:
    check_backend(CHAIN, attention_backend="fa3")
    check_backend(TREE)
    check_backend(TREE, attention_backend="flashinfer", decode_attention_backend="triton")
    check_backend(TREE, device="cpu", attention_backend="torch_native")


def test_trees_on_another_backend_are_refused() -> None:
    with pytest.raises(HeteroError, match="Drafter words proposes trees, which the attention backend fa3"):
        check_backend(TREE, attention_backend="fa3")
    with pytest.raises(HeteroError, match="fa4"):
        check_backend(TREE, attention_backend="flashinfer", speculative_draft_attention_backend="fa4")
    with pytest.raises(HeteroError, match="Two drafters of one request"):
        check_backend(CHAIN, merged=8, attention_backend="fa3")


def test_a_sorted_drafter_is_a_chain_where_no_model_leaves_layers() -> None:
    from sglang_hetero_spec.drafters.registry import build_drafter
    from sglang_hetero_spec.drafters.standalone import StandaloneDrafter

    spec = DrafterSpec("nested", "sorted", None, "shared", 4, 1, 5, exits=(2, 4, 6), thresholds=(0.5, 0.0))
    asked: list[DrafterSpec] = []
    host = SimpleNamespace(
        leaves_layers=False, draft_model=lambda spec: asked.append(spec), native_context=lambda spec: 2048
    )
    assert isinstance(build_drafter(spec, host), StandaloneDrafter)
    assert asked[0].exits == (2, 4), "nothing ever goes behind a threshold of 0"
