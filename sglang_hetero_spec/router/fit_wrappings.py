"""What chat templates put around a prompt. A router sees prompts of `/generate` bare and those of chats wrapped.

Not a template engine: the common shapes, so that a fit learns what in a wrapped prompt says nothing of its task.
"""

from __future__ import annotations

WRAPPINGS: tuple[tuple[str, str], ...] = (
    ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
    (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n<think>\n",
    ),
    (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    ("<s>[INST] ", " [/INST]"),
    ("<bos><start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n"),
    ("<|system|>\nYou are a friendly chatbot.</s>\n<|user|>\n", "</s>\n<|assistant|>\n"),
    ("<|user|>\n", "<|end|>\n<|assistant|>\n"),
    ("User: ", "\n\nAssistant:"),
    ("### Instruction:\n", "\n\n### Response:\n"),
    (
        "Below is an instruction that describes a task. Write a response that appropriately completes the"
        " request.\n\n### Instruction:\n",
        "\n\n### Response:",
    ),
    (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful,"
        " detailed, and polite answers to the user's questions. USER: ",
        " ASSISTANT:",
    ),
)
