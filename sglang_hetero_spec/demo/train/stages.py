"""The stages of `demo.make`, each of which is done once and found again when the command is run again."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from tokenizers import Tokenizer

from sglang_hetero_spec.demo.data import TASKS, Example, Sources, examples
from sglang_hetero_spec.demo.train import distill, target
from sglang_hetero_spec.demo.train.batches import Row, encode, plan
from sglang_hetero_spec.demo.train.evaluate import Counts, measure
from sglang_hetero_spec.demo.train.export import (
    GENERAL,
    NUM_STEPS,
    load_model,
    save_model,
    write_json,
    write_pool,
    write_tasks,
)
from sglang_hetero_spec.demo.train.generate import Answered, answer
from sglang_hetero_spec.demo.train.loop import Rates, train
from sglang_hetero_spec.demo.train.model import TinyLlama
from sglang_hetero_spec.demo.train.settings import Settings
from sglang_hetero_spec.demo.train.tokenizer import EOS, train_tokenizer

TARGET_KEYS = (
    "target",
    "examples_per_task",
    "target_tokens",
    "target_batch_tokens",
    "target_rate",
    "seed",
    "max_row_tokens",
)
ANSWER_KEYS = (*TARGET_KEYS, "answers_per_task", "heldout_per_task", "max_new_tokens")
DRAFTER_KEYS = (*ANSWER_KEYS, "drafter", "base_tokens", "drafter_tokens", "drafter_batch_tokens", "drafter_rate")
BASE = "base"


def _train_apart(shop: Workshop, name: str) -> None:
    torch.set_num_threads(1)
    tokens = shop.settings.drafter_tokens * (len(TASKS) if name == GENERAL else 1)
    shop.train_drafter(name, shop.stored_answers(name), tokens)


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

    def drafter_dir(self, name: str) -> Path:
        return self.out / "pool" / "drafters" / name

    def prepare(self) -> None:
        """Scratch that another target was made of is thrown away."""
        mark = self.work / "target.key"
        if mark.is_file() and mark.read_text(encoding="utf-8") != self._key(TARGET_KEYS):
            shutil.rmtree(self.work)
        self.work.mkdir(parents=True, exist_ok=True)
        mark.write_text(self._key(TARGET_KEYS), encoding="utf-8")

    def _key(self, names: tuple[str, ...]) -> str:
        """What a stage's result depends on, as text; a stage is done where its mark holds the same text."""
        chosen = {name: value for name, value in self.settings.as_dict().items() if name in names}
        return json.dumps({**chosen, "real_text": self.sources.data is not None}, sort_keys=True)

    def _is_done(self, stage: str, key: str) -> bool:
        mark = self.work / f"{stage}.done"
        return mark.is_file() and mark.read_text(encoding="utf-8") == key

    def _mark_done(self, stage: str, key: str) -> None:
        (self.work / f"{stage}.done").write_text(key, encoding="utf-8")

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

    def heldout(self) -> list[Example]:
        s = self.settings
        return [
            item
            for task in TASKS
            for item in examples(task, s.heldout_per_task, heldout=True, sources=self.sources, seed=s.seed)
        ]

    def _report(self, name: str) -> Callable[[int, int, float, float], None]:
        def report(step: int, steps: int, value: float, left: float) -> None:
            self.say(f"{name}: step {step}/{steps}, loss {value:.3f}, about {left / 60:.1f} min left")

        return report

    def train_target(self) -> None:
        s, key = self.settings, self._key(TARGET_KEYS)
        if self._is_done("target", key):
            return
        rows = [r for task in TASKS for r in encode(self.tokenizer, self._corpus(task)) if len(r) <= s.max_row_tokens]
        batches = plan([len(r) for r in rows], s.target_batch_tokens, s.target_tokens, s.seed)
        model = TinyLlama(s.target, s.seed)
        self._fit("target", model, len(batches), Rates(s.target_rate, s.target_rate),
                  lambda step: target.loss(model, [rows[i] for i in batches[step]], self.bf16))  # fmt: skip
        save_model(model, self.tokenizer, self.target_dir)
        self._mark_done("target", key)

    def _fit(self, name: str, model: TinyLlama, steps: int, rates: Rates, loss: Callable[[int], torch.Tensor]) -> None:
        began = time.monotonic()
        train(model, steps, loss, rates, self.work / f"{name}.ckpt", self._report(name))
        self._note(f"{name}_seconds", round(time.monotonic() - began))

    def _note(self, key: str, value: object) -> None:
        write_json(self.work / f"{key}.note", value)

    def answers(self, name: str, items: Callable[[], list[Example]]) -> list[Answered]:
        """The target's greedy answers with hidden states, from scratch space where they are already made."""
        path, key = self.work / f"answers-{name}.pt", self._key(ANSWER_KEYS)
        if not self._is_done(path.stem, key):
            self._answer(path, name, items())
            self._mark_done(path.stem, key)
        return [Answered(Row(t, p, a), h) for t, p, a, h in torch.load(path, weights_only=True, mmap=True)]

    def _answer(self, path: Path, name: str, items: list[Example]) -> None:
        began = time.monotonic()
        rows = [r for r in encode(self.tokenizer, items) if len(r.prompt) < self.settings.max_row_tokens]
        eos, limit = self.tokenizer.token_to_id(EOS), self.settings.max_new_tokens

        def report(done: int, total: int) -> None:
            self.say(f"answers {name}: {done}/{total}")

        found = answer(load_model(self.target_dir), rows, eos, limit, 128, report)
        torch.save([(a.row.task, a.row.prompt, a.row.answer, a.hidden) for a in found], path)
        self._note(f"answers_{name}_seconds", round(time.monotonic() - began))

    def regenerate(self) -> None:
        for task in TASKS:
            self.stored_answers(task)

    def train_drafter(self, name: str, items: list[Answered], tokens: int) -> None:
        """From the base (or, for the base itself, from nothing) to a drafter on disk."""
        s, key, stage = self.settings, self._key(DRAFTER_KEYS), f"drafter-{name}"
        if self._is_done(stage, key):
            return
        head = load_model(self.target_dir).model.embed_tokens.weight.detach()
        batches = plan([len(a.row) for a in items], s.drafter_batch_tokens, tokens, s.seed + (name != BASE))
        model = TinyLlama(s.drafter, s.seed) if name == BASE else load_model(self.work / BASE).train()
        self._fit(stage, model, len(batches), Rates(s.drafter_rate, s.drafter_rate),
                  lambda step: distill.loss(model, head, [items[i] for i in batches[step]], self.bf16))  # fmt: skip
        save_model(model, self.tokenizer, self.work / BASE if name == BASE else self.drafter_dir(name))
        self._mark_done(stage, key)

    def stored_answers(self, name: str) -> list[Answered]:
        """The answers that drafter `name` learns from: of its task, or of all tasks."""
        tasks = [name] if name in TASKS else list(TASKS)
        n = self.settings.answers_per_task
        return [a for task in tasks for a in self.answers(task, lambda task=task: self._corpus(task)[:n])]

    def train_drafters(self) -> None:
        """The base, a drafter per task, and the general one, which sees as many tokens of every task as its drafter.

        Models this small gain little from several threads: after the base there is one process per drafter.
        """
        s = self.settings
        self.train_drafter(BASE, self.stored_answers(BASE), s.base_tokens)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(torch.get_num_threads(), len(TASKS) + 1), context) as workers:
            # The longest first.
            jobs = [workers.submit(_train_apart, replace(self, say=print), name) for name in (GENERAL, *TASKS)]
            for job in jobs:
                job.result()

    def fit_router(self) -> bool:
        """False, with a line, where the router's trainer is not there."""
        try:
            from sglang_hetero_spec.router.fit import fit_router
        except ImportError as error:
            self.say(f"router: left out ({error})")
            return False
        items = [e for task in TASKS for e in self._corpus(task)[: self.settings.router_per_task]]
        self.say(f"router: fitting on {len(items)} prompts")
        fitted = fit_router([e.prompt for e in items], [e.task for e in items], random_state=self.settings.seed)
        fitted.save(self.out / "pool" / "router")
        return True

    def finish(self) -> None:
        """Router, lists and, last, the manifest."""
        has_router = self.fit_router()
        prompts = {task: [e.prompt for e in self._corpus(task)[: self.settings.router_per_task]] for task in TASKS}
        write_tasks(self.out / "pool", prompts)
        lines = [json.dumps({"prompt": e.prompt, "task": e.task}, ensure_ascii=False) for e in self.heldout()]
        (self.out / "heldout.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        write_pool(self.out / "pool", self.target_dir, list(TASKS), has_router)

    def table(self) -> dict[str, dict[str, Counts]]:
        """Counts on held-out prompts: task -> drafter ("task" or "general") -> counts; also kept in made.json."""
        items = self.answers("heldout", self.heldout)
        general = load_model(self.drafter_dir(GENERAL))
        found = {}
        for task in TASKS:
            mine = [a for a in items if a.row.task == task]
            own = load_model(self.drafter_dir(task))
            found[task] = {"task": measure(own, mine, NUM_STEPS), GENERAL: measure(general, mine, NUM_STEPS)}
        notes = {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in sorted(self.work.glob("*.note"))}
        made = {
            "python": sys.version.split()[0], "torch": torch.__version__, "threads": torch.get_num_threads(),
            "settings": self.settings.as_dict(), "seconds": notes,
            "heldout": {t: {d: vars(c) | {"accept_rate": c.accept_rate, "accept_length": c.accept_length}
                            for d, c in row.items()} for t, row in found.items()},
        }  # fmt: skip
        write_json(self.out / "made.json", made)
        return found
