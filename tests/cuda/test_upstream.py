"""What the CUDA side overrides or leans on in SGLang without a hook: read again before any of it is changed."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("sglang")

_FLASHINFER = "sglang.srt.layers.attention.flashinfer_backend"
_GRAPHS = "sglang.srt.model_executor.runner_backend.full_cuda_graph_backend.FullCudaGraphBackend"
_RUNNER = "sglang.srt.model_executor.runner.decode_cuda_graph_runner"
_EAGLE = "sglang.srt.speculative"
UPSTREAM = {
    # cuda/attn_backend.py
    f"{_FLASHINFER}.FlashInferAttnBackend.init_forward_metadata": "b2f820ab062b8f90",
    f"{_FLASHINFER}.FlashInferAttnBackend.init_forward_metadata_out_graph": "9a2970e34735d64d",
    f"{_FLASHINFER}.FlashInferAttnBackend.init_cuda_graph_state": "838ea77465b19751",
    f"{_FLASHINFER}.FlashInferAttnBackend.forward_extend": "7f0890130e96181a",
    "sglang.srt.layers.attention.attention_registry.create_flashinfer_backend": "a17e498dc480d521",
    f"{_RUNNER}.build_replay_fb_view": "864e9f3cd9a55f1c",
    f"{_EAGLE}.eagle_info.EagleVerifyInput.generate_attn_arg_prefill": "68754a35e7912e58",
    # cuda/graphs
    f"{_FLASHINFER}.FlashInferAttnBackend._prepare_cuda_graph_metadata": "3aed2f80c75ba606",
    f"{_FLASHINFER}.fast_prefill_plan": "e3a929a17b4d76f4",
    f"{_EAGLE}.eagle_info.EagleDraftExtendInput.generate_attn_arg_prefill": "1370c8fbe5fcb7d7",
    f"{_GRAPHS}.capture_session": "b93f3bcd582ea342",
    f"{_GRAPHS}.capture_one": "b11da397ea881b30",
    f"{_GRAPHS}.replay": "cf7508aca9e2b4ae",
    f"{_RUNNER}.DecodeCudaGraphRunner.__init__": "c44d75b117577043",
    f"{_EAGLE}.eagle_worker_v2.EAGLEWorkerV2.apply_runtime_state": "d5da95f0ed32c661",
}


@pytest.mark.parametrize("target", UPSTREAM)
def test_what_we_lean_on_has_not_changed(target: str) -> None:
    from sglang_hetero_spec.ledger import source_sha256

    assert source_sha256(target)[:16] == UPSTREAM[target], "read it again, then this test's number"
