"""What is sampled: groups of requests that are sent mixed, each with its own parameters and drafter."""

from __future__ import annotations

from dataclasses import dataclass

from tests.engine_sampling.laws import Params
from tests.support.overrides import served_by

PROMPT = [40, 41, 42, 43, 44]
NUM_TOKENS = 3
NUM_SAMPLES = 20_000

CHAIN, TREE, NONE = "chain", "tree", "nobody"
PAIR = f"{CHAIN}+{TREE}"
# With a vocabulary of their own.
TLI, SLEM, SLRS = "tli", "slem", "slrs"
MIXED_PAIR = f"{TLI}+{CHAIN}"
# Proposes what was drawn before.
NGRAM = "ngram"
# Leaves its model early now and then.
SORTED = "sorted"
# An adapter of the chain's model.
LORA = "lora"
NGRAM_PAIR = f"{CHAIN}+{NGRAM}"


@dataclass(frozen=True)
class Group:
    params: Params
    drafter: str

    def request(self) -> dict:
        sampling = {key: value for key, value in vars(self.params).items()}
        return {
            **sampling,
            "max_new_tokens": NUM_TOKENS,
            "ignore_eos": True,
            "custom_params": served_by(self.drafter),
        }


COOL = Params(temperature=0.7, top_k=5, top_p=0.8)
MIN_P = Params(min_p=0.1)
GREEDY = Params(temperature=0.0)

SETTINGS: dict[str, tuple[Group, ...]] = {
    "temperature 1": (Group(Params(), CHAIN), Group(Params(), TREE)),
    "temperature 0.7, top-k 5, top-p 0.8": (Group(COOL, CHAIN), Group(COOL, TREE)),
    "min-p 0.1": (Group(MIN_P, CHAIN), Group(MIN_P, TREE)),
    "mixed": (
        Group(GREEDY, CHAIN),
        Group(Params(), TREE),
        Group(COOL, CHAIN),
        Group(GREEDY, TREE),
        Group(MIN_P, TREE),
        Group(Params(temperature=1.5, top_p=0.9), CHAIN),
        Group(Params(top_k=20), NONE),
        Group(COOL, TREE),
        Group(Params(), TLI),
        Group(COOL, SLEM),
        Group(Params(), SLRS),
        Group(GREEDY, SLRS),
        Group(Params(), PAIR),
        Group(COOL, PAIR),
        Group(Params(), MIXED_PAIR),
        Group(Params(), NGRAM),
        Group(COOL, NGRAM),
        Group(Params(), NGRAM_PAIR),
        Group(Params(), SORTED),
        Group(COOL, SORTED),
        Group(Params(), LORA),
        Group(COOL, LORA),
    ),
}

# Each alone, as many samples of each.
ALONE: dict[str, tuple[Group, ...]] = {
    drafter: (Group(Params(), drafter), Group(COOL, drafter), Group(MIN_P, drafter))
    for drafter in (TLI, SLEM, SLRS, NGRAM, SORTED, LORA)
}
