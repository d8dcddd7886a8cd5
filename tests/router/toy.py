"""Three plainly different tasks, as many prompts as asked for."""

from __future__ import annotations

from collections.abc import Iterable

DRAFTER_OF_TASK = {"code": "coder", "sums": "counter", "letters": "general"}
_SHAPES = {
    "code": "Write a Python function f{n} that returns a list of {m} items.",
    "sums": "Tom has {n} apples and buys {m} more. How many apples does Tom have now?",
    "letters": "Dear Mrs. Miller, thank you for letter number {n} of May {m}. Yours sincerely,",
}


def toy_prompt(task: str, number: int) -> str:
    return _SHAPES[task].format(n=number, m=number % 7 + 3)


def toy_prompts(numbers: Iterable[int]) -> tuple[list[str], list[str]]:
    pairs = [(toy_prompt(task, number), task) for number in numbers for task in _SHAPES]
    return [prompt for prompt, _ in pairs], [task for _, task in pairs]
