"""Tables of the page: cells are words, every column has its definition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sglang_hetero_spec.bench.results import words
from sglang_hetero_spec.bench.results.definitions import DEFINITIONS, Definition
from sglang_hetero_spec.build.report.text import percent, shortened, whole


@dataclass(frozen=True)
class Cell:
    """main: the figure; soft: its interval, smaller."""

    main: str
    soft: str = ""


@dataclass(frozen=True)
class Column:
    """key: of definitions; title: where it is not the definition's own."""

    key: str
    title: str = ""

    @property
    def heading(self) -> str:
        return self.title or DEFINITIONS[self.key].title

    @property
    def meaning(self) -> str:
        return "; ".join(DEFINITIONS[key].meaning for key in self.key.split("."))


@dataclass(frozen=True)
class Table:
    """labels: headings of the leading columns, which hold names; rows: names, then one cell for each column."""

    title: str
    labels: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[Cell, ...]], ...]

    @property
    def definitions(self) -> list[Definition]:
        keys = dict.fromkeys(key for column in self.columns for key in column.key.split("."))
        return [DEFINITIONS[key] for key in keys]

    def span(self, place: int) -> int:
        """How many rows from this one on have its first name; 0 where the row before has it too."""
        firsts = [names[0] for names, _ in self.rows]
        if place and firsts[place - 1] == firsts[place]:
            return 0
        return next((at for at, name in enumerate(firsts[place:]) if name != firsts[place]), len(firsts) - place)


def tables(found: dict[str, Any], setting: str) -> list[Table]:
    """All tables of one setting; those without a figure are left out."""
    arms = found["settings"][setting]["arms"]
    made = [
        speed_table(found, setting),
        accept_table("What the target accepted", ("arm",), [((arm,), cell["all"]) for arm, cell in arms.items()]),
        accept_table("By task", ("task", "arm"), _by_task(found, arms)),
        accept_table("By drafter", ("drafter", "arm"), _by_drafter(arms)),
        latency_table(arms),
        step_table(arms),
    ]
    return [table for table in made if table.rows]


def speed_table(found: dict[str, Any], setting: str) -> Table:
    """Speeds of the arms and their ratios to the baseline."""
    arms, base = found["settings"][setting]["arms"], found["baseline"]
    ratios = found["settings"][setting]["ratios"]
    columns = (
        Column("server_tokens_per_second"),
        Column("by_repetition", "its repetitions"),
        Column("ratio", f"of {base}'s"),
        Column("request_tokens_per_second"),
        Column("ratio", f"of {base}'s"),
        Column("identical"),
    )
    rows = []
    for arm, cell in arms.items():
        ratio = ratios.get(f"{arm}/{base}", {}).get("all", {})
        server = cell["all"]["server_tokens_per_second"]
        cells = (
            figure(server, words.digits),
            Cell(words.repetitions(server, words.digits)),
            figure(ratio.get("server_tokens_per_second")),
            figure(cell["all"]["request_tokens_per_second"], words.digits),
            figure(ratio.get("request_tokens_per_second")),
            Cell(words.same_output(cell["all"]["identical"])),
        )
        rows.append(((arm,), cells))
    return Table("Speed", ("arm",), columns, tuple(rows))


def accept_table(
    title: str, labels: tuple[str, ...], groups: Iterable[tuple[tuple[str, ...], dict[str, Any]]]
) -> Table:
    """Accept lengths and rates, and what they brought one user."""
    columns = ("requests", "verify_steps", "accept_length", "accept_rate", "accept_rate_by_position")
    more = ("request_tokens_per_second", "identical")
    rows = [
        (
            names,
            (
                Cell(number(group["requests"])),
                Cell(number(group["verify_steps"])),
                figure(group["accept_length"]),
                figure(group["accept_rate"], _percent),
                Cell(_positions(group["accept_rate_by_position"])),
                figure(group["request_tokens_per_second"], words.digits),
                Cell(words.same_output(group["identical"])),
            ),
        )
        for names, group in groups
    ]
    return Table(title, labels, tuple(Column(key) for key in (*columns, *more)), tuple(rows))


def latency_table(arms: dict[str, Any]) -> Table:
    kinds = ("ttft", "inter_token", "chunk_gap", "latency")
    columns = tuple(
        Column(f"{kind}.{share}", f"{DEFINITIONS[kind].title}, {share}, ms")
        for kind in kinds
        for share in ("p50", "p99")
    )
    rows = [
        ((arm,), tuple(_milliseconds(cell["all"][kind][share]) for kind in kinds for share in ("p50", "p99")))
        for arm, cell in arms.items()
    ]
    return Table("Latencies", ("arm",), columns, tuple(rows))


def step_table(arms: dict[str, Any]) -> Table:
    """Of the arms whose server counts something."""
    columns = (
        *(Column(f"{part}_share") for part in ("draft", "target", "host")),
        Column("step_seconds", "a step, ms"),
        Column("host_step_seconds", "host, ms a step"),
        Column("route_seconds", "router, ms a request"),
        Column("kv_bytes", "KV memory, MB"),
        Column("kv_used_tokens"),
    )
    rows = []
    for arm, cell in arms.items():
        group = cell["all"]
        cells = (
            *(Cell(_percent(group[f"{part}_share"]["value"])) for part in ("draft", "target", "host")),
            *(Cell(scaled(group[key], 1e3)) for key in ("step_seconds", "host_step_seconds", "route_seconds")),
            Cell(scaled(group["kv_bytes"], 1e-6)),
            Cell(number(group["kv_used_tokens"])),
        )
        if any(item.main for item in cells):
            rows.append(((arm,), cells))
    return Table("Time of a step, router and memory", ("arm",), columns, tuple(rows))


def figure(item: dict[str, Any] | None, write: Callable[[float | None], str] = words.fixed) -> Cell:
    """An estimate: its value, and its interval below."""
    if item is None or item["value"] is None:
        return Cell("")
    soft = "" if item["low"] is None else f"{write(item['low'])} to {write(item['high'])}"
    return Cell(write(item["value"]), soft.replace("% to ", " to "))


def number(value: int | None) -> str:
    return "" if value is None else whole(value)


def scaled(value: float | None, factor: float) -> str:
    return "" if value is None else words.digits(value * factor)


def _milliseconds(item: dict[str, Any]) -> Cell:
    """With its interval, or else its repetitions."""
    if item["low"] is not None:
        return Cell(scaled(item["value"], 1e3), f"{scaled(item['low'], 1e3)} to {scaled(item['high'], 1e3)}")
    return Cell(scaled(item["value"], 1e3))


def _percent(share: float | None) -> str:
    return "" if share is None else percent(share)


def _positions(rates: Sequence[dict[str, Any]] | None) -> str:
    return " ".join(f"{100 * entry['rate']:.0f}%" for entry in rates or ())


def _by_task(found: dict[str, Any], arms: dict[str, Any]) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    return [
        ((shortened(task, 60), arm), cell["tasks"][task])
        for task in found["tasks"]
        for arm, cell in arms.items()
        if task in cell["tasks"]
    ]


def _by_drafter(arms: dict[str, Any]) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    names = sorted({name for cell in arms.values() for name in cell["drafters"]})
    return [
        ((shortened(name, 60), arm), cell["drafters"][name])
        for name in names
        for arm, cell in arms.items()
        if name in cell["drafters"]
    ]
