"""The demo's target and log of prompts; each is made once and found again when the command is run again."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer

from sglang_hetero_spec.demo.data import TASKS, Example, Sources, examples
from sglang_hetero_spec.demo.train import target
from sglang_hetero_spec.demo.train.batches import encode, plan
from sglang_hetero_spec.demo.train.export import save_model
from sglang_hetero_spec.demo.train.loop import Rates, train
from sglang_hetero_spec.demo.train.model import TinyLlama
from sglang_hetero_spec.demo.train.settings import Settings
from sglang_hetero_spec.demo.train.tokenizer import train_tokenizer
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.files import write_json, write_lines

_TARGET_KEYS = (
    "target",
    "examples_per_task",
    "target_tokens",
    "target_batch_tokens",
    "target_rate",
    "seed",
    "max_row_tokens",
)


@dataclass(frozen=True)
class Workshop:
    """Where things are, and how much is made. `work` is scratch; the rest is the result."""

    out: Path
    sources: Sources
    settings: Settings
    bf16: bool
    say: Callable[[str], None]

    @property
    def work(self) -> Path:
        return self.out / ".work"

    @property
    def target_dir(self) -> Path:
        return self.out / "target"

    @property
    def log(self) -> Path:
        """Prompts with the tasks that they come from, as `hetero-spec build` reads them."""
        return self.work / "prompts.jsonl"

    def prepare(self) -> None:
        """Scratch that another target was made of is thrown away."""
        mark = self.work / "target.key"
        if mark.is_file() and mark.read_text(encoding="utf-8") != self._key():
            shutil.rmtree(self.work)
        self.work.mkdir(parents=True, exist_ok=True)
        mark.write_text(self._key(), encoding="utf-8")

    def _key(self) -> str:
        """What the target depends on, as text."""
        chosen = {name: value for name, value in self.settings.as_dict().items() if name in _TARGET_KEYS}
        return json.dumps({**chosen, "real_text": self.sources.data is not None}, sort_keys=True)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        path = self.work / "tokenizer.json"
        if not path.is_file():
            self.say("tokenizer: training")
            texts = [text for task in TASKS for e in self._corpus(task)[:4000] for text in (e.prompt, e.answer)]
            train_tokenizer(texts, self.settings.target.vocab).save(str(path))
        return Tokenizer.from_file(str(path))

    def _corpus(self, task: str) -> list[Example]:
        s = self.settings
        return examples(task, s.examples_per_task, heldout=False, sources=self.sources, seed=s.seed)

    def train_target(self) -> None:
        s, done = self.settings, self.work / "target.seconds"
        if done.is_file():
            return
        began = time.monotonic()
        rows = [r for task in TASKS for r in encode(self.tokenizer, self._corpus(task)) if len(r) <= s.max_row_tokens]
        batches = plan([len(r) for r in rows], s.target_batch_tokens, s.target_tokens, s.seed)
        model = TinyLlama(s.target, s.seed)

        def report(step: int, steps: int, value: float, left: float) -> None:
            self.say(f"target: step {step}/{steps}, loss {value:.3f}, about {left / 60:.1f} min left")

        train(model, len(batches), lambda step: target.loss(model, [rows[i] for i in batches[step]], self.bf16),
              Rates(s.target_rate, s.target_rate), self.work / "target.ckpt", report)  # fmt: skip
        save_model(model, self.tokenizer, self.target_dir)
        write_json(done, round(time.monotonic() - began), HeteroError)

    def write_prompts(self) -> None:
        """The log that the pool is built from, and the prompts that neither target nor pool ever see."""
        s = self.settings
        _write(self.log, [e for task in TASKS for e in self._corpus(task)[: s.prompts_per_task]])
        kept = (examples(task, s.heldout_per_task, heldout=True, sources=self.sources, seed=s.seed) for task in TASKS)
        _write(self.out / "heldout.jsonl", [e for mine in kept for e in mine])


def _write(path: Path, items: list[Example]) -> None:
    lines = (json.dumps({"prompt": e.prompt, "task": e.task}, ensure_ascii=False) for e in items)
    write_lines(path, lines, HeteroError)
