"""Which checkpoints can be plain draft models in SGLang 0.5.23."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sglang_hetero_spec.pool.errors import PoolError, shown

# SGLang loads these as the multi-token-prediction head of their target when they are a draft model
# (sglang/srt/configs/model_config.py, `_config_draft_model`); a test compares the list with that source.
REWRITTEN = frozenset(
    (
        "BailingMoeForCausalLM",
        "BailingMoeV2ForCausalLM",
        "BailingMoeV2_5ForCausalLM",
        "BailingMoeV3ForCausalLM",
        "DeepseekV32ForCausalLM",
        "DeepseekV3ForCausalLM",
        "DeepseekV4ForCausalLM",
        "Dots3NoteForCausalLM",
        "Ernie4_5_MoeForCausalLM",
        "ExaoneMoEForCausalLM",
        "ExaoneMoeForCausalLM",
        "GigaChat35ForCausalLM",
        "Glm4MoeForCausalLM",
        "Glm4MoeLiteForCausalLM",
        "Glm5NextForConditionalGeneration",
        "GlmMoeDsaForCausalLM",
        "GlmOcrForConditionalGeneration",
        "HYV3ForCausalLM",
        "HYV4ForCausalLM",
        "InklingForConditionalGeneration",
        "InternS2MobiusForConditionalGeneration",
        "InternS2PreviewForConditionalGeneration",
        "LongcatFlashForCausalLM",
        "MiMoForCausalLM",
        "MiMoV2FlashForCausalLM",
        "MiMoV2ForCausalLM",
        "NemotronHForCausalLM",
        "NemotronHPuzzleForCausalLM",
        "NemotronH_Omni_Reasoning_V3",
        "Qwen3MoeForCausalLM",
        "Qwen3NextForCausalLM",
        "Qwen3_5ForCausalLM",
        "Qwen3_5ForConditionalGeneration",
        "Qwen3_5MoeForCausalLM",
        "Qwen3_5MoeForConditionalGeneration",
        "Qwen4ExpForConditionalGeneration",
        "Step3p5ForCausalLM",
        "Step3p7ForConditionalGeneration",
    )
)

_DRAFT_HEAD = re.compile(r"Eagle|NextN|MTP|DFlash|DSpark|Medusa|Assistant", re.IGNORECASE)
_NO_LANGUAGE_MODEL = re.compile(r"For(MaskedLM|\w*Classification|QuestionAnswering|\w*Reward\w*|\w*Embedding)$")


def refuse_architecture(config: dict[str, Any], path: Path) -> None:
    """PoolError unless the config.json at `path` is of a causal LM that SGLang can draft with."""
    if "auto_map" in config:
        raise PoolError(f"{path}: `auto_map` would run code of the checkpoint; remove it, or use another draft model.")
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise PoolError(f"{path}: `architectures` is {shown(names)}; name the model's class, as transformers saves it.")
    name, use = names[0], "use a dense causal LM (Llama, Qwen2, Qwen3, Gemma, ...)"
    if name in REWRITTEN:
        raise PoolError(
            f"{path}: `architectures` is {name}, which SGLang 0.5.23 turns into a head of the target; {use}."
        )
    if _DRAFT_HEAD.search(name):
        raise PoolError(f"{path}: `architectures` is {name}, a head that needs its target's hidden states; {use}.")
    if _NO_LANGUAGE_MODEL.search(name):
        raise PoolError(f"{path}: `architectures` is {name}, not a language model; {use}.")
