"""The page as HTML: whole, escaped, and every figure on it one of the inputs or a quotient of their sums."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from lxml import html

from sglang_hetero_spec.build.assign.result import read_assignment
from sglang_hetero_spec.build.profile.records import read_profile
from sglang_hetero_spec.build.prompts import plain_prompt, read_prompts, write_prompts
from sglang_hetero_spec.build.report import write_report
from sglang_hetero_spec.build.report.inputs import read_inputs
from sglang_hetero_spec.build.report.measured import read_measured
from sglang_hetero_spec.build.report.page import render_page
from sglang_hetero_spec.demo.data import TASK_NAMES

SECTIONS = ("tasks", "map", "drafters", "learning", "speed", "router", "rejected", "made")
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>'\"&amp;</title></style>{{ 7 * 7 }}"


def parsed(path: Path) -> html.HtmlElement:
    return html.fromstring(path.read_bytes(), parser=html.HTMLParser(encoding="utf-8"))


def text_of(element: html.HtmlElement) -> str:
    return " ".join(element.text_content().split())


def rows_of(page: html.HtmlElement, label: str) -> list[list[str]]:
    rows = page.xpath(f"//div[@aria-label='{label}']//tbody/tr")
    return [[text_of(cell) for cell in row] for row in rows]


def copied(example: Path, folder: Path) -> Path:
    shutil.copytree(example, folder)
    (folder / "report.html").unlink(missing_ok=True)
    return folder


def without(folder: Path, *names: str) -> Path:
    for name in names:
        for path in folder.rglob(name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def test_all_sections_are_there_and_nothing_is_missing(page: Path) -> None:
    root = parsed(page)
    assert [section.get("id") for section in root.xpath("//section")] == list(SECTIONS)
    assert root.xpath("//*[@class='missing']") == []


def test_the_summary_names_tasks_drafters_and_gains(page: Path, example: Path) -> None:
    assignment = read_assignment(example / "assignment.json")
    runs = read_measured(example / "measured.jsonl")
    rows = {row[0]: row for row in rows_of(parsed(page), "Tasks and their drafters")}
    for task in assignment.tasks:
        title = TASK_NAMES[task.task]
        row = next(row for name, row in rows.items() if name.startswith(title))
        assert row[2].startswith(task.drafter)
        assert row[3] == f"{task.accept_length:.2f}"
        assert row[4] == f"{task.expected.gain_over_none:.2f}\u00d7"
        speeds = {}
        for arm in ("none", "hetero"):
            mine = [run for run in runs if run.task == task.task and run.arm == arm]
            speeds[arm] = sum(run.completion_tokens for run in mine) / sum(run.seconds for run in mine)
        assert row[5].startswith(f"{speeds['hetero'] / speeds['none']:.2f}\u00d7")


def test_the_matrix_is_that_of_the_profile(page: Path, example: Path) -> None:
    assignment = read_assignment(example / "assignment.json")
    lengths = {
        (record.drafter, str(record.settings), record.task): f"{record.accept_length:.2f}"
        for record in read_profile(example / "profile.jsonl")
    }
    table = parsed(page).xpath("//div[@aria-label='Accept lengths']//table")[0]
    titles = [text_of(cell) for cell in table.xpath(".//thead//th")]
    ids = {name: task for task, name in TASK_NAMES.items()}
    marked = set()
    for row in table.xpath(".//tbody/tr"):
        drafter, settings = text_of(row[0]).split(" ", 1)
        for title, cell in zip(titles, row[1:], strict=True):
            shape = "0/1/1" if drafter == "none" else settings
            assert text_of(cell.find("b")) == lengths[drafter, shape, ids[title]]
            if "assigned" in cell.get("class"):
                marked.add((ids[title], drafter))
    assert marked == set(assignment.drafter_of_task.items())


def test_the_confusion_matrix_counts_every_judged_prompt(page: Path, example: Path) -> None:
    threshold = json.loads((example / "router" / "threshold.json").read_text())
    rows = rows_of(parsed(page), "Confusion matrix")
    shown = sum(int(cell) for row in rows for cell in row[1:-1])
    assert shown == sum(item["num_prompts"] for item in threshold["confusion"])


def test_the_speeds_are_sums_divided(page: Path, example: Path) -> None:
    runs = [run for run in read_measured(example / "measured.jsonl") if run.task is None]
    rows = [row for row in rows_of(parsed(page), "Speeds") if row[0] == "all tasks mixed"]
    assert [row[1] for row in rows] == ["none", "standalone general", "hetero"]
    for row in rows:
        mine = [run for run in runs if run.series == row[1]]
        speed = sum(run.completion_tokens for run in mine) / sum(run.seconds for run in mine)
        predicted = mine[0].predicted_tokens_per_second
        assert row[2] == f"{predicted:.1f}"
        assert row[3].startswith(f"{speed:.1f}")
        assert row[4] == f"{100 * (predicted / speed - 1):+.1f}%"


def test_every_figure_in_a_table_of_raw_counts_is_in_its_file(page: Path, example: Path) -> None:
    records = read_profile(example / "profile.jsonl")
    rows = rows_of(parsed(page), "Every measurement")
    assert len(rows) == len(records)
    for record, row in zip(records, rows, strict=True):
        counts = [record.concurrency, record.requests, record.verify_steps, record.proposed_drafts]
        assert row[:7] == [record.drafter, str(record.settings), record.task, *(f"{count:,}" for count in counts)]
        assert row[7].split() == [f"{count:,}" for count in record.correct_by_position]


def test_no_figure_comes_from_nowhere(page: Path, example: Path) -> None:
    """Each number of the running text and the tiles is in the files, or computed from them here."""
    root = parsed(page)
    other = "//style|//svg|//pre|//*[@class='scroll']|//*[contains(@class,'user')]|//details|//footer"
    for element in root.xpath(other):
        element.drop_tree()
    allowed = in_files(example) | computed(example)
    text = text_of(root)
    assert f"{len(read_prompts(example / 'prompts.jsonl'))} prompts" in text
    found = re.findall(r"(?<![\w.+-])\d[\d,]*(?:\.\d+)?(?![\w.])", text)
    assert len(found) > 40
    assert [number for number in found if float(number.rstrip(",").replace(",", "")) not in allowed] == []


def in_files(example: Path) -> set[float]:
    """Every number in the files of figures, as it is and rounded as the page does."""
    names = ("tasks.json", "partition.json", "router/threshold.json", "router/router.json", "assignment.json")
    text = " ".join((example / name).read_text() for name in names)
    numbers = {float(found) for found in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.])", text)}
    return {round(number * factor, digits) for number in numbers for digits in (1, 2, 3, 9) for factor in (1, 100)}


def computed(example: Path) -> set[float]:
    """Counts of lines, shares of prompts, and the gains of the mixed runs with their spread."""
    prompts = read_prompts(example / "prompts.jsonl")
    tasks = [prompt.task for prompt in prompts]
    confusion = json.loads((example / "router" / "threshold.json").read_text())["confusion"]
    drafters = set(read_assignment(example / "assignment.json").drafter_of_task.values()) - {"none"}
    rejects = (example / "rejects.jsonl").read_text().splitlines()
    kept = {len(prompts), tasks.count(None), sum(item["num_prompts"] for item in confusion), len(drafters)}
    kept |= {len(rejects), *(json.loads(line)["line"] for line in rejects)}
    kept |= {round(100 * tasks.count(task) / len(tasks), 1) for task in TASK_NAMES}
    right = sum(item["num_prompts"] for item in confusion if item["task"] == item["predicted"])
    kept |= {right, round(100 * right / sum(item["num_prompts"] for item in confusion), 1)}
    runs = [run for run in read_measured(example / "measured.jsonl") if run.task is None]
    for arm in ("standalone", "hetero"):
        mine, none = ([run for run in runs if run.arm == name] for name in (arm, "none"))
        each = [
            a.completion_tokens / a.seconds / (b.completion_tokens / b.seconds) for a, b in zip(mine, none, strict=True)
        ]
        speed = sum(run.completion_tokens for run in mine) / sum(run.seconds for run in mine)
        base = sum(run.completion_tokens for run in none) / sum(run.seconds for run in none)
        kept |= {len(mine), round(speed, 1), *(round(gain, 2) for gain in (speed / base, min(each), max(each)))}
    return kept


def test_the_same_files_give_the_same_bytes(example: Path) -> None:
    inputs = read_inputs(example)
    assert render_page(inputs) == render_page(inputs)


@pytest.mark.parametrize(
    ("gone", "sections"),
    [
        (("prompts.jsonl",), {"tasks", "map"}),
        (("profile.jsonl",), {"drafters"}),
        (("assignment.json",), {"drafters", "speed"}),
        (("align",), {"learning"}),
        (("threshold.json",), {"router"}),
        (("measured.jsonl",), {"speed"}),
        (("command.txt", "run.yaml"), {"made"}),
    ],
)
def test_what_is_missing_is_said_in_its_section(
    example: Path, tmp_path: Path, gone: tuple[str, ...], sections: set[str]
) -> None:
    folder = without(copied(example, tmp_path / "build"), *gone)
    root = parsed(write_report(folder).path)
    found = root.xpath("//*[@class='missing']/ancestor::section/@id")
    assert set(found) == sections
    assert all(text_of(line).startswith("Missing: ") for line in root.xpath("//*[@class='missing']"))


def test_tasks_alone_make_a_report(example: Path, tmp_path: Path) -> None:
    shutil.copy(example / "tasks.json", tmp_path)
    root = parsed(write_report(tmp_path).path)
    assert len(root.xpath("//article")) == len(TASK_NAMES)
    assert "No drafter was assigned" in text_of(root)


def test_user_data_is_never_markup(example: Path, tmp_path: Path) -> None:
    folder = copied(example, tmp_path / "build")
    tasks = json.loads((folder / "tasks.json").read_text())
    for task in tasks:
        task.update(name=EVIL, top_terms=[EVIL, "</li>"], examples=[EVIL, "x" * 5000])
    (folder / "tasks.json").write_text(json.dumps(tasks))
    prompts = [plain_prompt(f"{EVIL} {i}", EVIL, "sql" if i % 2 else None) for i in range(30)]
    write_prompts(folder / "prompts.jsonl", prompts)
    (folder / "rejects.jsonl").write_text(json.dumps({"line": 1, "reason": EVIL, "raw": EVIL}) + "\n")
    (folder / "run.yaml").write_text(EVIL)
    (folder / "command.txt").write_text(EVIL)
    (folder / "versions.json").write_text(json.dumps({EVIL: EVIL}))
    written = write_report(folder)
    root = parsed(written.path)
    assert root.xpath("//script|//img|//iframe|//object|//embed|//*[@onerror]") == []
    assert [section.get("id") for section in root.xpath("//section")] == list(SECTIONS)
    text = written.path.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "{{ 7 * 7 }}" in text


def test_characters_that_no_page_may_hold_are_replaced(example: Path, tmp_path: Path) -> None:
    tasks = json.loads((example / "tasks.json").read_text())
    tasks[0].update(
        name="strange", examples=["a\x00b\x1b[31m\u202eevil", "\u4f60\u597d \u0645\u0631\u062d\u0628\u0627"]
    )
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    text = write_report(tmp_path).path.read_text(encoding="utf-8")
    assert "a\ufffdb\ufffd[31m\ufffdevil" in text
    assert "\u4f60\u597d" in text
    assert not set(text) & {"\x00", "\x1b", "\u202e"}


def test_it_asks_for_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    root = parsed(page)
    links = root.xpath("//@href|//@src|//@srcset|//@action|//@data")
    assert all(link.startswith(("#", "data:,")) for link in links)
    assert "@import" not in text
    assert "url(" not in text
    assert "default-src 'none'" in root.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")[0]


@pytest.mark.parametrize("texts", [["one"], ["same", "same"], ["a", "b", "c"], ["", " ", "."], ["x y"] * 9 + ["z"]])
def test_few_or_equal_prompts_have_a_map(tmp_path: Path, texts: list[str]) -> None:
    (tmp_path / "tasks.json").write_text(json.dumps({"tasks": [{"id": "t"}]}))
    prompts = {prompt.id: prompt for prompt in (plain_prompt(text, task="t") for text in texts)}
    write_prompts(tmp_path / "prompts.jsonl", prompts.values())
    marks = parsed(write_report(tmp_path).path).xpath("//*[contains(@class,'dot')]")
    assert len(marks) == len(prompts)
