"""The section as tables: rows of short texts, for markdown here and for HTML in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_KEY = (
    "Middle of the draws, and 5 to 95% of them; after the comma, as many drafts a step as are fastest. The accept"
    " length from which on it pays is that of the run's own, longest chains; never: not if every draft is right."
)
_SPLITS = {
    "setting": "each setting in turn",
    "few settings": "all settings but two",
    "arm": "each arm in turn",
}


@dataclass(frozen=True)
class Table:
    """notes: sentences that stand below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def tables(section: Mapping[str, Any]) -> list[Table]:
    """What the section has to show; for a part that is null, a table without rows whose note says why."""
    found = [_summary(section["check"]), _checked(section["check"]), _costs(section["fit"])]
    found += _expected(section["expect"])
    found.append(_published(section["published"]))
    return [table for table in found if table.rows or table.notes]


def render_markdown(section: Mapping[str, Any]) -> str:
    return "\n\n".join(["## Speed model", *(_markdown(table) for table in tables(section))]) + "\n"


def _markdown(table: Table) -> str:
    lines = [f"### {table.title}", ""]
    if table.rows:
        lines += [_line(table.columns), _line(["---"] * len(table.columns)), *map(_line, table.rows), ""]
    lines += [f"- {note}" for note in table.notes]
    return "\n".join(lines).rstrip()


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _summary(check: Mapping[str, Any]) -> Table:
    title = "How well the model predicts what it was not fitted on"
    columns = ("held out", "predicted", "within 15%", "median error", "largest error")
    if check["rows"] is None:
        return Table(title, columns, (), (f"Not checked: {check['why_not']}",))
    rows = [
        (
            _SPLITS[name],
            str(one["predicted"]),
            str(one["within"]),
            f"{100 * one['median_error']:.0f}%",
            f"{100 * one['largest_error']:.0f}%",
        )
        for name, one in check["summary"].items()
    ]
    return Table(title, columns, tuple(rows), ("Errors are those of tokens per second of an arm in a setting.",))


def _checked(check: Mapping[str, Any]) -> Table:
    columns = (
        "held out",
        "arm",
        "setting",
        "tokens/s measured",
        "repetitions",
        "predicted",
        "error",
        "of a request's time",
    )
    rows = []
    for row in check["rows"] or ():
        seen = (f"{row['measured']['tokens_per_second']:.1f}", f"{row['lowest']:.1f} to {row['highest']:.1f}")
        if row["predicted"] is None:
            said = ("", "", row["why_not"])
        else:
            said = (
                f"{row['predicted']['tokens_per_second']:.1f}",
                _signed(row["error"]),
                _signed(row["request_error"]),
            )
        rows.append((row["held_out"], row["arm"], row["setting"], *seen, *said))
    return Table("Every held-out arm and setting", columns, tuple(rows))


def _costs(fit: Mapping[str, Any]) -> Table:
    columns = ("server", "part", "milliseconds for each")
    if fit["servers"] is None:
        return Table("Fitted costs", columns, (), (f"Nothing was fitted: {fit['why_not']}",))
    rows = [
        (server, part, ", ".join(f"{name} {1e3 * seconds:.3g}" for name, seconds in terms.items()))
        for server, parts in fit["servers"].items()
        for part, terms in parts.items()
    ]
    notes = list(fit["assumptions"])
    if fit["forwards"]:
        notes.append(
            f"Verify forwards, simulated against counted: median error {100 * fit['forwards']['median_error']:.1f}%,"
            f" largest {100 * fit['forwards']['largest_error']:.1f}%."
        )
    return Table("Fitted costs", columns, tuple(rows), tuple(notes))


def _expected(expect: Mapping[str, Any]) -> list[Table]:
    title = "What to expect on H100s"
    if expect["rows"] is None:
        return [Table(title, (), (), (f"Not computed: {expect['why_not']}",))]
    found = []
    for graphs, how in ((True, "drafters in CUDA graphs"), (False, "drafters launched by Python")):
        rows = [row for row in expect["rows"] if row["graphs"] is graphs]
        found.append(_expected_table(f"{title}: {how}", rows))
    last = found[-1]
    return [found[0], Table(last.title, last.columns, last.rows, (*expect["assumptions"], *expect["left_out"]))]


def _expected_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each target, drafter and batch; two columns for each way to serve."""
    names = list(dict.fromkeys(row["pooling"] for row in rows))
    lines: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        key = f"{row['target']} on {row['where']}", row["drafter"], str(row["batch"])
        lines.setdefault(key, {})[row["pooling"]] = row
    columns = ["target", "drafter", "in flight", "tokens/s, none"]
    for name in names:
        columns += [f"{name}: times none, drafts", "pays from accept length"]
    body = []
    for key, found in lines.items():
        none = next((_interval(row["none"], 0) for row in found.values() if row["why_not"] is None), "")
        cells = [cell for name in names for cell in _ways(found[name])]
        body.append((*key, none, *cells))
    return Table(title, tuple(columns), tuple(body), (_KEY,))


def _ways(row: Mapping[str, Any]) -> tuple[str, str]:
    if row["why_not"] is not None:
        return row["why_not"], ""
    pays = _interval(row["break_even"], 1)
    if row["break_even"][1] > row["most_steps"] + 1:
        pays = "never"  # not even if every draft is right
    return f"{_interval(row['speedup'], 2)}, {row['num_steps']}", pays


def _published(published: Mapping[str, Any]) -> Table:
    columns = ("published by", "on", "in flight", "drafter (accept length)", "published tokens/s", "model", "inside")
    rows = [
        (
            row["source"],
            row["where"],
            str(row["requests"]),
            "none" if row["drafter"] is None else f"{row['drafter']} ({row['accept_length']:.2f})",
            f"{row['published']:.0f}",
            f"{row['middle']:.0f} ({row['low']:.0f} to {row['high']:.0f})",
            "yes" if row["inside"] else "no",
        )
        for row in published["rows"]
    ]
    return Table("The roofline beside published figures", columns, tuple(rows), tuple(published["assumptions"]))


def _interval(three: Sequence[float], digits: int) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in three)
    return f"{middle} ({low} to {high})"


def _signed(value: float) -> str:
    return f"{100 * value:+.0f}%"
