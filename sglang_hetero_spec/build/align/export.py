"""The finished drafter's folder: weights, config and tokenizer, loadable by transformers and SGLang alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from sglang_hetero_spec.build.align.errors import AlignStopped

_TOKENIZER = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*", "vocab.json", "vocab.txt",
    "merges.txt", "*.model", "*.tiktoken", "generation_config.json",
)  # fmt: skip
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WEIGHTS = ("model*.safetensors", "adapter_model.safetensors")


def save_dtype(name: str, stored: Any) -> torch.dtype:
    """`auto` is `stored`, what the target's weights are stored in."""
    if name != "auto":
        return _DTYPES[name]
    return stored if stored in _DTYPES.values() else torch.float32


def export(model: Any, tokenizer_from: str, dtype: torch.dtype, staging: Path, out: Path) -> None:
    """Write everything to `staging`, then move it to `out` (on the same disk), weights last."""
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        model.to("cpu").to(dtype).save_pretrained(staging)
        _save_tokenizer(tokenizer_from, staging)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise AlignStopped(
            f"{out} cannot take the drafter ({' '.join(str(error).split())[:120]}); free disk space and run the same"
            " command again: training is not repeated."
        ) from None
    (staging / "README.md").unlink(missing_ok=True)  # peft's empty model card
    mode = (staging / "config.json").stat().st_mode if (staging / "config.json").is_file() else 0o644
    for path in sorted(staging.iterdir(), key=lambda path: path.suffix == ".safetensors"):
        path.chmod(mode)  # safetensors writes files that only their owner may read
        path.replace(out / path.name)
    staging.rmdir()


def _save_tokenizer(source: str, folder: Path) -> None:
    """The files as they are where there is a folder: the same bytes, the same hash."""
    if not Path(source).is_dir():
        from transformers import AutoTokenizer

        AutoTokenizer.from_pretrained(source).save_pretrained(folder)
        return
    for pattern in _TOKENIZER:
        for path in Path(source).glob(pattern):
            if path.is_file() and not (folder / path.name).is_file():
                shutil.copyfile(path, folder / path.name)
