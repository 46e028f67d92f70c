"""Every results page is complete, and the committed index lists all of them."""

from __future__ import annotations

import re
from pathlib import Path

import index_results
import pytest
from index_results import FIELDS, INDEX, RESULTS, TOPICS, ResultPage, read_page, read_pages

ROOT = Path(__file__).resolve().parents[2]
PAGES = [path for path in sorted(RESULTS.glob("*.md")) if path != INDEX]


@pytest.fixture(params=PAGES, ids=lambda path: path.stem)
def page(request: pytest.FixtureRequest) -> ResultPage:
    return read_page(request.param)


def test_front_matter_is_complete(page: ResultPage) -> None:
    assert list(page.front_matter) == list(FIELDS)
    for key, expected in FIELDS.items():
        value = page.front_matter[key]
        assert isinstance(value, expected), f"{key} is not a {expected.__name__}"
        assert str(value).strip(), f"{key} is empty"
    assert page.front_matter["topic"] in TOPICS
    assert re.fullmatch(r"[0-9a-f]{7,40}", page.front_matter["commit"])


def test_page_has_question_answer_and_one_table(page: ResultPage) -> None:
    text = " ".join(page.body.split())
    opening = f"# {page.front_matter['title']} {page.front_matter['question']} **{page.answer}**"
    assert page.answer and text.startswith(opening)
    assert len(re.findall(r"^\|(?: ?-+:? ?\|| ?:?-+ ?\|)+$", page.body, re.MULTILINE)) == 1


def test_files_and_pages_that_a_page_names_exist(page: ResultPage) -> None:
    for target in re.findall(r"\]\(([^)#]+\.md)\)", page.body):
        assert (RESULTS / target).is_file(), target
    for target in re.findall(r"\b(?:benchmarks|configs|export|tests)/[\w/.-]+\.\w+", page.body):
        assert (ROOT / target).is_file(), target


def test_index_is_current() -> None:
    assert INDEX.read_text(encoding="utf-8") == index_results.render_index(read_pages()), (
        "run python benchmarks/studies/index_results.py"
    )
