"""What is compared: ways to serve one target, and the server that each needs."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sglang_hetero_spec.bench.arms_file import MoreArm
from sglang_hetero_spec.bench.errors import BenchError
from sglang_hetero_spec.bench.ranking import Costs, best_single, fits_standalone, routable, worst
from sglang_hetero_spec.bench.workload import Item, Workload
from sglang_hetero_spec.pool import Pool
from sglang_hetero_spec.pool.errors import listed
from sglang_hetero_spec.serving import flags

NONE, STANDALONE, BEST, NGRAM = "none", "standalone", "standalone-best", "ngram"
HETERO, ORACLE, RANDOM, WORST = "hetero", "hetero-oracle", "hetero-random", "hetero-worst"
NAMES = (NONE, STANDALONE, BEST, NGRAM, HETERO, ORACLE, RANDOM, WORST)
# SGLang's default width, and fewer nodes than its default of ten million, which no test machine has memory for.
NGRAM_FLAGS = ("--speculative-algorithm", "NGRAM", "--speculative-num-draft-tokens", "12",
               "--speculative-ngram-capacity", "1000000")  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One way to serve. server: the name of the server that it uses, started with `options`.

    router: real, oracle, random or worst; None where nobody routes. drafter: that serves every request, where it is
    always the same. choices: what `random` draws from; by_task: what `worst` sends each task to. url: of a server that
    runs already.
    """

    name: str
    server: str
    title: str
    definition: str
    options: tuple[str, ...] = ()
    router: str | None = None
    drafter: str | None = None
    choices: tuple[str, ...] = ()
    by_task: Mapping[str, str] = field(default_factory=dict)
    url: str | None = None

    def override(self, item: Item, prompt: int, repetition: int, seed: int) -> dict[str, str] | None:
        """The `hetero` field of the request's custom_params; None leaves it to the server."""
        if self.router == "oracle":
            return {"task": item.task}
        if self.router == "random":
            # By request, and the same in all settings, so that they differ by nothing else.
            return {"drafter": random.Random(f"{seed}/{repetition}/{prompt}").choice(self.choices)}
        if self.router == "worst":
            return {"drafter": self.by_task[item.task]}
        return {"drafter": self.drafter} if self.drafter and self.server == HETERO else None

    def as_dict(self) -> dict[str, Any]:
        return {
            **{"name": self.name, "server": self.server, "title": self.title, "definition": self.definition},
            **{"router": self.router, "drafter": self.drafter},
        }


@dataclass(frozen=True)
class Planned:
    """arms: in the order in which they are measured; notes: of usual arms that are left out, a sentence each."""

    arms: tuple[Arm, ...]
    notes: tuple[str, ...]


def plan_arms(
    pool: Pool,
    work: Workload,
    costs: Costs | None,
    asked: Sequence[str] | None,
    more: Sequence[MoreArm] = (),
    best: str | None = None,
) -> Planned:
    """asked: names; None for all, where those that cannot be had are left out. best: the drafter of standalone-best.

    BenchError, in one sentence, for an unknown name, or one that needs what is missing. `none` is always measured.
    """
    plan = _Plan(pool, work, costs, best)
    names = list(asked) if asked is not None else [*NAMES, *(arm.name for arm in more)]
    extra = {arm.name: arm for arm in more}
    for name in names:
        if name not in NAMES and name not in extra:
            raise BenchError(f"--arms: there is no arm `{name}`; choose from {listed([*NAMES, *extra])}.")
    arms, notes = [], []
    for name in dict.fromkeys([NONE, *names]):
        try:
            arms.append(plan.more(extra[name]) if name in extra else plan.arm(name))
        except BenchError as error:
            if asked is not None:
                raise
            notes.append(f"Left out: {error}")
    if asked is None:
        arms, same = _without_twins(arms)
        notes += same
    return Planned(tuple(_sharing(arms)), tuple(notes))


def _without_twins(arms: list[Arm]) -> tuple[list[Arm], list[str]]:
    """STANDALONE with the best single drafter stands for the general one too where they are the same."""
    both = {arm.name: arm for arm in arms if arm.name in (STANDALONE, BEST)}
    if len(both) < 2 or both[STANDALONE].options != both[BEST].options:
        return arms, []
    title = f"STANDALONE, `{both[BEST].drafter}` (the general and the best single drafter)"
    note = f"Left out: {STANDALONE}, since the general drafter is the best single one, and {BEST} measures it."
    kept = [replace(arm, title=title) if arm.name == BEST else arm for arm in arms if arm.name != STANDALONE]
    return kept, [note]


def _sharing(arms: Sequence[Arm]) -> list[Arm]:
    """Arms that need the same server share it."""
    first: dict[tuple[str, ...], str] = {}
    for arm in arms:
        if arm.url is None:
            first.setdefault(arm.options, arm.server)
    return [arm if arm.url else replace(arm, server=first[arm.options]) for arm in arms]


@dataclass(frozen=True)
class _Plan:
    pool: Pool
    work: Workload
    costs: Costs | None
    best: str | None

    def arm(self, name: str) -> Arm:
        if name == NONE:
            return Arm(NONE, NONE, "no speculation", "the target alone, one token a forward for each request")
        if name == NGRAM:
            return Arm(NGRAM, NGRAM, "NGRAM", "SGLang's NGRAM, trees of 12 nodes", NGRAM_FLAGS)
        return {
            STANDALONE: self._standalone,
            BEST: self._best,
            HETERO: self._hetero,
            ORACLE: self._oracle,
            RANDOM: self._random,
            WORST: self._worst,
        }[name]()

    def more(self, arm: MoreArm) -> Arm:
        if arm.drafter is not None:
            self._known(arm.drafter, f"the arm `{arm.name}`")
            routed = Arm(arm.name, HETERO, arm.title or arm.name, arm.definition, self._flags(), drafter=arm.drafter)
            return replace(routed, definition=arm.definition or f"HETERO, `{arm.drafter}` for every request")
        words = " ".join(arm.options) or "a running server"
        return Arm(arm.name, arm.name, arm.title or arm.name, arm.definition or words, arm.options, url=arm.url)

    def _flags(self) -> tuple[str, ...]:
        return flags.hetero(self.pool.root)

    def _known(self, name: str, who: str) -> None:
        if name not in [spec.name for spec in self.pool.drafters]:
            known = listed(spec.name for spec in self.pool.drafters)
            raise BenchError(f"{who} names the drafter `{name}`, and {self.pool.root} has {known}; name one of these.")

    def _standalone(self) -> Arm:
        general = self.pool.fallback_drafter
        if not fits_standalone(self.pool.drafter(general)):
            raise BenchError(
                f"{STANDALONE} needs the pool's general drafter to be a model with the target's vocabulary, and"
                f" `{general}` is none; leave the arm out, or give {BEST} with --standalone NAME."
            )
        return self._with_standalone(STANDALONE, general, "the general drafter")

    def _best(self) -> Arm:
        name = self.best
        if name is not None:
            self._known(name, "--standalone")
            if not fits_standalone(self.pool.drafter(name)):
                raise BenchError(
                    f"--standalone {name}: SGLang's STANDALONE needs a draft model with the target's vocabulary; name"
                    " another drafter."
                )
            return self._with_standalone(BEST, name, "as chosen with --standalone")
        name = best_single(self.pool, self._costs(BEST, "--standalone NAME"), self._mix())
        if name is None:
            raise BenchError(
                f"{BEST}: the pool's profile has no draft model measured on all tasks of these prompts; name one with"
                " --standalone."
            )
        return self._with_standalone(BEST, name, "the best single drafter for this mix by the pool's profile")

    def _with_standalone(self, arm: str, name: str, why: str) -> Arm:
        spec = self.pool.drafter(name)
        definition = f"SGLang's STANDALONE with the drafter `{name}`, {why}"
        return Arm(arm, arm, f"STANDALONE, `{name}`", definition, flags.standalone(spec), drafter=name)

    def _hetero(self) -> Arm:
        if self.pool.router is None:
            raise BenchError(
                f"{HETERO} needs a router, and {self.pool.root} has none; run `hetero-spec fit-router`, or choose"
                f" {ORACLE}."
            )
        return self._routed(HETERO, "real", "HETERO", "the pool, each request routed by its router")

    def _oracle(self) -> Arm:
        self._labels(ORACLE)
        return self._routed(ORACLE, "oracle", "HETERO, oracle", "the pool, each request told its true task")

    def _random(self) -> Arm:
        choices = routable(self.pool)
        if not choices:
            raise BenchError(f"{RANDOM} needs drafters to draw from, and {self.pool.root} has none; leave it out.")
        definition = f"the pool, each request with one drafter drawn from the {len(choices)} that its router knows"
        return replace(self._routed(RANDOM, "random", "HETERO, random", definition), choices=choices)

    def _worst(self) -> Arm:
        self._labels(WORST)
        costs = self._costs(WORST, "--arms without it")
        found = {task: worst(routable(self.pool), costs, task) for task in self.work.tasks}
        missing = [task for task, name in found.items() if name is None]
        if missing:
            raise BenchError(
                f"{WORST}: the pool's profile has nothing on {listed(missing)}; run `hetero-spec profile` on these"
                " prompts, or leave the arm out with --arms."
            )
        definition = "the pool, each request with the drafter that is slowest on its task by the pool's profile"
        by_task = {task: name for task, name in found.items() if name is not None}
        return replace(self._routed(WORST, "worst", "HETERO, worst", definition), by_task=by_task)

    def _routed(self, name: str, router: str, title: str, definition: str) -> Arm:
        return Arm(name, HETERO, title, definition, self._flags(), router=router)

    def _labels(self, arm: str) -> None:
        known = [task.id for task in self.pool.tasks]
        unknown = [task for task in self.work.tasks if task not in known]
        if unknown:
            raise BenchError(
                f"{arm} needs prompts with the pool's tasks ({listed(known)}), and these have {listed(unknown)}; give"
                " prompts with a `task`, or leave the arm out with --arms."
            )

    def _costs(self, arm: str, instead: str) -> Costs:
        if self.costs is None:
            raise BenchError(
                f"{arm} needs the pool's profile.jsonl, and {self.pool.root} has none; run `hetero-spec profile`, or"
                f" give {instead}."
            )
        return self.costs

    def _mix(self) -> Mapping[str, int]:
        """Requests by task; where the prompts have other tasks than the profile, all of its tasks alike."""
        tasks = self.work.tasks
        profiled = {task for task, _ in self.costs or {}}
        return tasks if set(tasks) <= profiled else dict.fromkeys(sorted(profiled), 1)
