"""HETERO names FlashInfer where the user named no attention backend, and only there; our backend steps in only where
it can serve."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sglang_hetero_spec.errors import HeteroError

pytestmark = pytest.mark.usefixtures("sglang")

STOCK = {"attention_backend": "fa3"}


def chosen(monkeypatch: pytest.MonkeyPatch, mla: bool = False, available: bool = True, **changes: object) -> dict:
    import sglang.srt.utils
    from sglang.srt.arg_groups import overrides

    from sglang_hetero_spec.cuda.hooks import prefer_flashinfer

    monkeypatch.setattr(overrides, "use_mla_backend", lambda view: mla)
    monkeypatch.setattr(sglang.srt.utils, "is_flashinfer_available", lambda: available)
    view = SimpleNamespace(
        speculative_algorithm="HETERO",
        device="cuda",
        attention_backend=None,
        prefill_attention_backend=None,
        decode_attention_backend=None,
    )
    view.__dict__.update(changes)
    return prefer_flashinfer(lambda view: STOCK, view)


def test_flashinfer_where_nothing_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(monkeypatch) == {"attention_backend": "flashinfer"}


@pytest.mark.parametrize(
    "changes",
    [
        {"speculative_algorithm": "STANDALONE"},
        {"speculative_algorithm": None},
        {"device": "cpu"},
        {"attention_backend": "triton"},
        {"prefill_attention_backend": "fa3"},
        {"decode_attention_backend": "triton"},
        {"mla": True},
        {"available": False},
    ],
    ids=str,
)
def test_sglangs_choice_everywhere_else(monkeypatch: pytest.MonkeyPatch, changes: dict) -> None:
    assert chosen(monkeypatch, **changes) == STOCK


def runner(**changes: object) -> SimpleNamespace:
    text = SimpleNamespace(attn_logit_softcapping=None)
    made = SimpleNamespace(
        is_draft_worker=False,
        use_mla_backend=False,
        is_hybrid_swa=False,
        model_config=SimpleNamespace(hf_text_config=text, is_encoder_decoder=False, model_path="target"),
        sliding_window_size=None,
        prefill_attention_backend_str="flashinfer",
        decode_attention_backend_str="flashinfer",
        kv_index_translator=SimpleNamespace(reads_are_translated=False),
        server_args=SimpleNamespace(
            enable_deterministic_inference=False, enable_two_batch_overlap=False, enable_pdmux=False
        ),
        dtype=torch.bfloat16,
        kv_cache_dtype=torch.bfloat16,
        init_new_workspace=False,
    )
    made.__dict__.update(changes)
    return made


def capped() -> SimpleNamespace:
    return SimpleNamespace(hf_text_config=SimpleNamespace(attn_logit_softcapping=50.0), is_encoder_decoder=False)


CASES = {
    "draft": ({"is_draft_worker": True}, "draft model"),
    "mla": ({"use_mla_backend": True}, "latent"),
    "hybrid": ({"is_hybrid_swa": True}, "hybrid"),
    "capped": ({"model_config": capped()}, "caps"),
    "mixed": ({"prefill_attention_backend_str": "fa3"}, "different attention backends"),
    "translated": ({"kv_index_translator": SimpleNamespace(reads_are_translated=True)}, "translates"),
    "float32": ({"dtype": torch.float32}, "float32"),
    "packed": ({"kv_cache_dtype": torch.uint8}, "packed"),
}


@pytest.fixture
def _one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang_hetero_spec.cuda import attn_backend

    monkeypatch.setattr(attn_backend, "get_parallel", lambda: SimpleNamespace(attn_dcp_size=1))


@pytest.mark.usefixtures("_one_rank")
@pytest.mark.parametrize(("changes", "word"), CASES.values(), ids=CASES)
def test_why_a_runner_stays_with_sglangs_verification(changes: dict, word: str) -> None:
    from sglang_hetero_spec.cuda.attn_backend import why_not_in_parts

    assert why_not_in_parts(runner()) is None
    assert word in why_not_in_parts(runner(**changes))


@pytest.mark.usefixtures("_one_rank")
def test_sglangs_registry_makes_ours_for_the_target_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang.srt.layers.attention.attention_registry import ATTENTION_BACKENDS

    from sglang_hetero_spec.cuda import attn_backend

    monkeypatch.setitem(ATTENTION_BACKENDS, "flashinfer", lambda runner: "SGLang's")
    monkeypatch.setattr(attn_backend, "TreeFlashInferBackend", lambda runner, init_new_workspace: "ours")
    attn_backend.register_tree_backend()
    create = ATTENTION_BACKENDS["flashinfer"]
    attn_backend.register_tree_backend()
    assert ATTENTION_BACKENDS["flashinfer"] is create, "once"
    assert create(runner()) == "ours" and create(runner(is_draft_worker=True)) == "SGLang's"
    windowed = {"sliding_window_size": 512, "use_mla_backend": True}
    assert create(runner(is_draft_worker=True, **windowed)) == "SGLang's"
    with pytest.raises(HeteroError, match="sliding window, and the model uses multi-head latent attention"):
        create(runner(**windowed))


@pytest.mark.usefixtures("_one_rank")
def test_draft_models_that_run_at_once_have_workspaces_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang.srt.layers.attention.attention_registry import ATTENTION_BACKENDS

    from sglang_hetero_spec.cuda import attn_backend

    def is_new(runner: SimpleNamespace, init_new_workspace: bool | None = None) -> bool:
        return runner.init_new_workspace if init_new_workspace is None else init_new_workspace

    monkeypatch.setitem(ATTENTION_BACKENDS, "flashinfer", is_new)
    monkeypatch.setattr(attn_backend, "TreeFlashInferBackend", is_new)
    found = []
    for own in (False, True, False):
        attn_backend.register_tree_backend(own_workspaces=own)
        create = ATTENTION_BACKENDS["flashinfer"]
        found.append((create(runner()), create(runner(is_draft_worker=True))))
    assert found == [(False, False), (False, True), (False, False)]
