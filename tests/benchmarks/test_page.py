"""The page report.html: complete, safe, readable without pictures, and without overflow."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import measure, require_chromium, screenshot
from kdedge.benchmarks import pictures
from kdedge.benchmarks.page import html_page
from kdedge.benchmarks.pictures.data import (
    density,
    groups,
    is_constant,
    latency_axis,
    score_axis,
    time_front,
)
from kdedge.benchmarks.pictures.label_places import Box, Label, place_labels
from kdedge.benchmarks.pictures.pareto import pareto
from kdedge.benchmarks.pictures.style import WIDE
from kdedge.benchmarks.render import PAGE_FILE, write_report
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.retention import Retention
from kdedge.benchmarks.summary import summary
from PIL import Image
from reports import compared_report, report, timings

VOID = {"meta", "br", "hr", "link", "img", "input"}


class Elements(HTMLParser):
    """Read a page strictly: every element must be closed by its own end tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def with_baseline(name: str = "student") -> Report:
    """A report whose student has a label-only baseline, and whose rows have intervals."""
    example = report(name)
    rows = []
    for row in example.rows:
        assert row.value is not None
        rows.append(replace(row, interval=(row.value - 0.02, row.value + 0.02)))
    baseline = replace(
        rows[2],
        subject=f"{name} baseline",
        kind="baseline",
        form="torch",
        value=0.85,
        interval=(0.83, 0.87),
        retention=Retention(0.944, 0.93, 0.96, "not retained"),
        single=None,
        model=None,
        batched=None,
    )
    return replace(example, rows=(*rows, baseline))


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Let imports of these packages fail, as on a device install."""
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


def test_the_page_holds_everything_in_order() -> None:
    example = with_baseline()
    elements = Elements(html_page(example))
    words = elements.words
    parts = [
        summary(example).replace(" %", "\u00a0%"),
        "Accuracy against time",
        "All subjects",
        "Time for one text",
        "Accuracy with its 95 % interval",
        "general note",
        "Environment",
        "numpy",
        "kdedge bench runs/toy",
    ]
    places = [words.index(" ".join(part.split())) for part in parts]
    assert places == sorted(places)
    for row in example.rows:
        assert row.subject in words
        assert f"{row.value:.4f}" in words
    assert "0.8700 [0.850–0.890]" in words
    assert len(elements.all("svg")) == 6, "three pictures in two widths"


def test_the_page_is_accessible() -> None:
    text = html_page(with_baseline())
    elements = Elements(text)
    assert elements.all("html")[0]["lang"] == "en"
    assert all(header.get("scope") in ("col", "row") for header in elements.all("th"))
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for picture in elements.all("svg"):
        assert picture["role"] == "img"
        assert picture["aria-labelledby"] in ids
    assert len(elements.all("h1")) == 1
    for region in elements.all("div"):
        if region.get("class") == "scroll":
            assert region["tabindex"] == "0" and region["aria-labelledby"] in ids


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = html_page(with_baseline())
    elements = Elements(text)
    assert not elements.all("script") + elements.all("link") + elements.all("img")
    assert "://" not in text and "url(" not in text and "@import" not in text
    for _, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on") or name in HREFS]


HREFS = ("href", "src", "xlink:href", "srcset", "action")


@pytest.mark.parametrize("missing", [(), ("vl_convert",), ("jinja2",)])
@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "[bold]x", '"><b>', "{{ 7*7 }}"])
def test_names_stay_text(
    name: str, missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, *missing)
    example = with_baseline(name)
    example = replace(
        example,
        task={**example.task, "name": name},
        teacher={**example.teacher, "model": name},
        notes=(f"note on {name}",),
        command=f"kdedge bench {name}",
    )
    elements = Elements(html_page(example))
    assert not elements.all("script") + elements.all("b")[1:]
    assert elements.words.count(name) > 5
    assert "49" not in elements.all("title")


def test_without_the_packages_that_draw_the_page_has_its_tables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for package, named in (("altair", "altair"), ("vl_convert", "vl-convert-python")):
        with monkeypatch.context() as patch:
            without(patch, package)
            elements = Elements(html_page(with_baseline()))
        assert not elements.all("svg")
        assert f"no pictures, because {named} is not installed" in elements.words
        assert len(elements.all("table")) == 2 and "96.7" in elements.words


def test_without_jinja2_the_page_is_the_markdown_report(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "jinja2", "altair", "vl_convert")
    example = with_baseline()
    elements = Elements(html_page(example))
    assert "no pictures, because jinja2 is not installed" in elements.words
    assert summary(example) in elements.words
    assert len(elements.all("table")) == 1
    assert all(header["scope"] == "col" for header in elements.all("th"))
    for row in example.rows:
        assert row.subject in elements.words
    assert "kdedge bench runs/toy" in elements.words


def test_no_package_of_the_extra_is_imported_with_the_modules() -> None:
    code = (
        "import sys; import kdedge.benchmarks.page, kdedge.benchmarks.pictures;"
        " import kdedge.benchmarks.render;"
        " print(sorted({'altair', 'vl_convert', 'jinja2', 'pandas', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def test_a_report_of_times_alone_has_a_page() -> None:
    example = report()
    rows = [replace(row, value=None, retention=None) for row in example.rows[2:4]]
    elements = Elements(html_page(replace(example, rows=tuple(rows), teacher={})))
    assert len(elements.all("svg")) == 2
    assert "student onnx int8 classifies a text in" in elements.words
    assert "retention % [95 %]" not in elements.text


def test_a_report_without_rows_has_a_page() -> None:
    elements = Elements(html_page(replace(report(), rows=())))
    assert "kdedge bench runs/toy" in elements.words


def test_a_picture_with_a_foreign_element_is_refused() -> None:
    space = 'xmlns="http://www.w3.org/2000/svg"'
    with pytest.raises(ValueError, match="<script>"):
        pictures.clean_svg(f"<svg {space}><script>x</script></svg>", "a", "b")
    cleaned = pictures.clean_svg(
        f'<svg {space} onload="x" id="y"><g clip-path="url(#z)" fill="red"/></svg>', "a", "<b>"
    )
    assert cleaned == (
        '<svg role="img" aria-labelledby="a"><title id="a">&lt;b&gt;</title><g fill="red" /></svg>'
    )


# What the pictures show


def test_baselines_belong_to_their_student() -> None:
    found = {group.name: group for group in groups(with_baseline())}
    assert list(found) == ["teacher", "student", "majority class"]
    assert [row.label for row in found["student"].rows] == [
        "student onnx fp32",
        "student onnx int8",
        "student baseline",
    ]
    assert len({group.colour for group in found.values()}) == 3


def test_the_front_has_what_nothing_beats() -> None:
    rows = [row for row in report().rows if row.single is not None]
    front = time_front(rows)
    assert [score for _, score in front] == [0.87, 0.88, 0.89, 0.9]
    slow = replace(rows[2], single=timings(30e-3), value=0.88)
    assert time_front([*rows, slow]) == front


def test_axes_hold_what_they_show() -> None:
    example = with_baseline()
    axis = score_axis(example)
    assert axis is not None
    assert axis.low < 0.83 and axis.high > 0.92, "every interval is inside"
    assert axis.low > 0.25, "the majority class is outside"
    timed = [row for row in example.rows if row.single is not None]
    latency = latency_axis(timed, whole=True)
    assert latency.low < 1 and latency.high > 40 and 10 in latency.ticks


def test_a_majority_class_above_all_others_is_inside_the_axis() -> None:
    example = report()
    constant = next(row for row in example.rows if is_constant(row))
    rows = [
        replace(row, value=0.95, interval=None) if row is constant else row for row in example.rows
    ]
    axis = score_axis(replace(example, rows=tuple(rows)))
    assert axis is not None and axis.high > 0.95


def test_a_density_peaks_at_the_median() -> None:
    row = report().rows[3]
    axis = latency_axis(report().rows[:4], whole=True)
    points = np.array(density(row, axis))
    assert points[:, 1].max() == pytest.approx(1)
    assert points[points[:, 1].argmax(), 0] == pytest.approx(1.0, rel=0.1)


def test_no_mark_covers_the_text_of_the_target() -> None:
    """A fast student that scores exactly the target stands where the text was before."""
    example = report()
    fast = replace(
        example.rows[3],
        subject="fast",
        single=timings(0.3e-3),
        value=0.99 * 0.9,
        bytes=20_000_000,
    )
    chart = pareto(replace(example, rows=(fast, *example.rows)), WIDE).to_dict()
    main = chart.get("hconcat", [chart])[0]
    values = [layer["data"]["values"][0] for layer in main["layer"]]
    label = next(
        Label(value["text"], value["x"], value["y"], "left")
        for value in values
        if value.get("text") == "99 % of the teacher"
    )
    circles = next(layer for layer in main["layer"] if "size" in layer["encoding"])
    low, high = circles["encoding"]["y"]["scale"]["domain"]
    fastest, slowest = circles["encoding"]["x"]["scale"]["domain"]
    for point in circles["data"]["values"]:
        x = main["width"] * math.log(point["latency"] / fastest) / math.log(slowest / fastest)
        y = main["height"] * (high - point["score"]) / (high - low)
        radius = math.sqrt(point["area"] / math.pi)
        circle = Box(x - radius, y - radius, x + radius, y + radius)
        assert label.box.overlap(circle) == 0, point


def test_labels_avoid_points_and_each_other() -> None:
    wanted = [(50.0, 50.0, 8.0, "first"), (60.0, 52.0, 8.0, "second"), (70.0, 50.0, 8.0, "third")]
    points = [Box(x - r, y - r, x + r, y + r) for x, y, r, _ in wanted]
    boxes = [label.box for label in place_labels(wanted, points, 200, 200)]
    for number, box in enumerate(boxes):
        others = points + boxes[:number]
        assert all(box.overlap(other) == 0 for other in others)
        assert box.left >= 0 and box.top >= 0


# In a browser


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    long = compared_report("a-student-with-quite-a-long-name-and-no-end-in-sight")
    note = "a note with one-long-word-" + "x" * 120
    command = "kdedge bench " + "runs/" + "y" * 150
    folder = tmp_path_factory.mktemp("page")
    write_report(replace(long, notes=(note,), command=command), folder)
    return folder / PAGE_FILE


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_its_window(written: Path, width: int, dark: bool, tmp_path: Path) -> None:
    require_chromium()
    measured = measure(written, width, dark=dark, folder=tmp_path)
    assert measured["innerWidth"] == width
    assert measured["scrollWidth"] <= width
    assert len(measured["pictures"]) == 6, "one width of each picture"
    assert max(measured["pictures"]) <= width
    image = Image.open(screenshot(written, width, 2000, dark=dark, folder=tmp_path)).convert("RGB")
    assert image.size == (width, 2000)
    pixels = np.asarray(image)
    background = [int(value) for value in re.findall(r"\d+", measured["background"])]
    assert pixels[0, 0].tolist() == background
    assert (np.mean(background) < 60) == dark
    marked = (np.abs(pixels.astype(int) - background).sum(2) > 60).mean()
    assert marked > 0.01, "the page is blank"
    for part in np.split(pixels, 5):
        assert len(np.unique(part.reshape(-1, 3), axis=0)) > 20, "a part of the page is blank"
