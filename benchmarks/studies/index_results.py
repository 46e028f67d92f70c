"""Write benchmarks/results/README.md, the index of all results pages.

    python benchmarks/studies/index_results.py

Every page opens with YAML front matter. The index lists the question of each page, its answer
and a link, grouped by topic.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

RESULTS = Path(__file__).resolve().parents[1] / "results"
INDEX = RESULTS / "README.md"
TOPICS = {
    "students": "Students against their teacher",
    "learning": "What helps a student learn",
    "int8": "What int8 costs",
    "speed": "Speed, bytes and memory",
}
FIELDS: Mapping[str, type] = {
    "title": str,
    "topic": str,
    "question": str,
    "date": date,
    "commit": str,
    "machine": str,
    "command": str,
}
"""Keys of the front matter and their types, in order."""

INTRODUCTION = """\
# Results

Every page answers one question with one table, and states the command that makes it. Scores come
from a test split that chose no checkpoint, value or text, unless the page says otherwise. Times of
one page come from one interleaved run, unless the page says otherwise: compare ratios, not
microseconds, across pages.

Most recipes of the studies read data sets from `../shared/data`, which is not part of kdedge: take
them from their original sources.

`python benchmarks/studies/index_results.py` writes this index.
"""


@dataclass(frozen=True)
class ResultPage:
    """One results page: its front matter, and the text below it."""

    path: Path
    front_matter: Mapping[str, Any]
    body: str

    @property
    def answer(self) -> str:
        """The first bold paragraph, on one line; empty if there is none."""
        match = re.search(r"^\*\*(.+?)\*\*$", self.body, re.MULTILINE | re.DOTALL)
        return " ".join(match[1].split()) if match else ""


def read_page(path: Path) -> ResultPage:
    """Read a page.

    Raises:
        ValueError: If the page has no front matter.
    """
    parts = path.read_text(encoding="utf-8").split("---\n", 2)
    if len(parts) != 3 or parts[0]:
        raise ValueError(f"{path.name} does not open with YAML front matter")
    return ResultPage(path, yaml.safe_load(parts[1]), parts[2])


def read_pages() -> list[ResultPage]:
    """Read all pages, in the order of their names."""
    return [read_page(path) for path in sorted(RESULTS.glob("*.md")) if path != INDEX]


def render_index(pages: list[ResultPage]) -> str:
    """Write the index as Markdown, one table for each topic."""
    lines = [INTRODUCTION]
    for topic, heading in TOPICS.items():
        lines += [f"## {heading}", "", "| question | answer | page |", "| --- | --- | --- |"]
        for page in pages:
            if page.front_matter["topic"] == topic:
                link = f"[{page.path.stem}]({page.path.name})"
                lines.append(f"| {page.front_matter['question']} | {page.answer} | {link} |")
        lines.append("")
    return "\n".join(lines)


def study() -> None:
    """Write the index."""
    INDEX.write_text(render_index(read_pages()), encoding="utf-8")


if __name__ == "__main__":
    study()
