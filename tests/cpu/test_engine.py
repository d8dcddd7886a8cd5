"""Real engines on this machine: greedy output is transformers' with the same weights, speculation or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.tiny_models import TinyShape, byte_tokenizer, write_tiny_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="the CPU engine does nothing where CUDA is available"),
]

NEW_TOKENS = 24
PROMPTS = [[3, 9, 27, 81, 243], [7] * 40, [5], [(17 * i) % 250 + 2 for i in range(70)]]
# A near-tie between the target's two best tokens may go either way.
TIE = 1e-4


def write_model(kind: str, path: Path) -> Path:
    """A tiny random checkpoint of the architecture `kind`."""
    from transformers import AutoModelForCausalLM, Gemma2Config, Qwen2Config, Qwen3Config

    if kind == "llama":
        return write_tiny_model(path, seed=0, shape=TinyShape(hidden=96, layers=3, heads=6, kv_heads=2))
    common = {
        "vocab_size": 258,
        "hidden_size": 96,
        "intermediate_size": 160,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "initializer_range": 0.1,
    }
    configs = {
        "qwen2": lambda: Qwen2Config(**common),
        "qwen3": lambda: Qwen3Config(**common, head_dim=32),
        "gemma2": lambda: Gemma2Config(
            **common,
            head_dim=16,
            sliding_window=16,
            attn_logit_softcapping=5.0,
            final_logit_softcapping=10.0,
            query_pre_attn_scalar=16,
            hidden_act="gelu_pytorch_tanh",
        ),
    }
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(configs[kind]()).save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


def serve(model: Path, **settings: object) -> list[list[int]]:
    """Greedy tokens of all prompts, from an engine in a process of its own."""
    command = [sys.executable, "-m", "tests.cpu.test_engine", json.dumps({"model_path": str(model), **settings})]
    env = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    run = subprocess.run(command, capture_output=True, text=True, timeout=900, env=env, cwd=Path(__file__).parents[2])
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads(run.stdout.strip().splitlines()[-1])


def check(model: Path, outputs: list[list[int]]) -> None:
    """Every token is transformers' choice given the tokens before it, near-ties apart."""
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager")
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        assert len(output) == NEW_TOKENS
        with torch.no_grad():
            logits = reference(torch.tensor([prompt + output])).logits[0, len(prompt) - 1 : -1]
        behind = logits.max(-1).values - logits.gather(1, torch.tensor(output)[:, None])[:, 0]
        assert bool((behind < TIE).all()), behind


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma2"])
def test_models(kind: str, tmp_path: Path) -> None:
    model = write_model(kind, tmp_path / kind)
    check(model, serve(model))


SHAPES = {"chain": (3, 1, 4), "tree": (3, 4, 8)}


@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_standalone_speculation(kind: str, shape: str, tmp_path: Path) -> None:
    model = write_model(kind, tmp_path / kind)
    steps, topk, tokens = SHAPES[shape]
    drafter = write_tiny_model(tmp_path / "drafter", seed=1)
    outputs = serve(
        model,
        speculative_algorithm="STANDALONE",
        speculative_draft_model_path=str(drafter),
        speculative_num_steps=steps,
        speculative_eagle_topk=topk,
        speculative_num_draft_tokens=tokens,
    )
    check(model, outputs)


def test_ngram_speculation(tmp_path: Path) -> None:
    model = write_model("llama", tmp_path / "llama")
    check(model, serve(model, speculative_algorithm="NGRAM", speculative_num_draft_tokens=6))


def test_bfloat16_serves(tmp_path: Path) -> None:
    outputs = serve(write_model("llama", tmp_path / "llama"), dtype="bfloat16")
    assert [len(output) for output in outputs] == [NEW_TOKENS] * len(PROMPTS)


def main(settings: dict[str, object]) -> None:
    from sglang_hetero_spec import cpu

    cpu.enable()
    import sglang

    arguments = {"dtype": "float32", "max_total_tokens": 4096, "max_running_requests": 8, "log_level": "error"}
    # SGLang takes memory that other programs claim meanwhile for its own weights, and refuses to start.
    arguments["mem_fraction_static"] = 0.95
    engine = sglang.Engine(device="cpu", **{**arguments, **settings})
    sampling = {"temperature": 0, "max_new_tokens": NEW_TOKENS, "ignore_eos": True}
    results = engine.generate(input_ids=PROMPTS, sampling_params=sampling)
    engine.shutdown()
    print(json.dumps([result["output_ids"] for result in results]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
