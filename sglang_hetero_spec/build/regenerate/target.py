"""The target's folder: what can be checked before anything is loaded, and prompts as its token ids."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sglang_hetero_spec.build.prompts import Prompt
from sglang_hetero_spec.build.regenerate.errors import RegenerateError

_SAMPLE_BYTES = 1 << 16
_IDENTITY = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "tokenizer.model",
             "adapter_config.json")  # fmt: skip


def check_target(target: str, *, with_weights: bool) -> None:
    """RegenerateError if `target` is a folder without a usable checkpoint; a name of a hub is left to transformers."""
    folder = Path(target)
    if not folder.exists() and target.count("/") == 1 and not target.startswith((".", "/", "~")):
        return
    if not (folder / "config.json").is_file():
        raise RegenerateError(
            f"--target {target} has no config.json; give the folder of a Hugging Face checkpoint (or the name of one)."
        )
    if not with_weights:
        return
    from sglang_hetero_spec.pool import PoolError
    from sglang_hetero_spec.pool.safetensors_file import read_header

    files = sorted(folder.glob("*.safetensors"))
    if not files and not any(folder.glob("*.bin")) and not any(folder.glob("*.gguf")):
        raise RegenerateError(f"--target {target} has no weights (*.safetensors); copy the whole checkpoint.")
    try:
        for file in files:
            read_header(file)
    except PoolError as error:
        raise RegenerateError(str(error)) from None


def fingerprint(target: str) -> str:
    """Says whether two runs asked the same target: of the small files' content, and of samples of the weights."""
    folder = Path(target)
    if not folder.is_dir():
        return target
    digest = hashlib.sha256()
    for name in _IDENTITY:
        if (folder / name).is_file():
            digest.update(name.encode() + b"\0" + (folder / name).read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            for offset in (0, size // 3, size // 2, max(0, size - _SAMPLE_BYTES)):
                file.seek(offset)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:32]


def load_tokenizer(target: str, *, trust: bool = False) -> Any:
    """The target's tokenizer, as transformers loads it; RegenerateError if there is none. trust: run its own code."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(target, trust_remote_code=trust)
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise RegenerateError(
            f"The tokenizer of --target {target} does not load ({first}); copy the whole checkpoint."
        ) from None


def context_of(target: str) -> int | None:
    """`max_position_embeddings` of the target's config, None if it names none."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(target).get_text_config()
    except Exception:
        return None  # SGLang may know a model that this transformers does not
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def encode(tokenizer: Any, prompts: Sequence[Prompt]) -> list[tuple[int, ...] | str]:
    """Token ids of each prompt: a chat through the chat template with the answer's opening, a text as it is.

    In place of the ids of a prompt that the target cannot be asked: why.
    RegenerateError if a prompt is a chat and the target has no chat template.
    """
    chats = [prompt for prompt in prompts if prompt.messages is not None]
    if chats and not getattr(tokenizer, "chat_template", None):
        raise RegenerateError(
            f"{len(chats)} of {len(prompts)} prompts are chats (the first is `{chats[0].id}`), but the target has no"
            " chat template; put a chat_template.jinja into its folder, or write these prompts as plain text."
        )
    return [_encode(tokenizer, prompt) for prompt in prompts]


def _encode(tokenizer: Any, prompt: Prompt) -> tuple[int, ...] | str:
    if prompt.messages is None:
        ids = tokenizer(prompt.text).input_ids
    else:
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template refuses by raising what it likes
            return f"the chat template refuses it ({' '.join(str(error).split())[:200]})"
        ids = tokenizer(text, add_special_tokens=False).input_ids  # the template has put them where they belong
    return tuple(ids) if ids else "the prompt has no token"
