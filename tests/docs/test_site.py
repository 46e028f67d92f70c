"""Links and pages of the documentation site."""

from __future__ import annotations

import yaml
from doc_pages import DOCS, ROOT
from links import GENERATED, copied_pages, site_markdown, with_command


def test_links_to_results_point_to_pages_of_the_site() -> None:
    text = "[table](../../benchmarks/results/trec.md), [all](../../benchmarks/results/README.md)"
    expected = "[table](../results/trec.md), [all](../results/index.md)"
    assert site_markdown(text, "how-to/augment.md") == expected


def test_a_link_may_span_two_lines() -> None:
    text = "See [the\ntable](../benchmarks/results/trec.md)."
    assert site_markdown(text, "index.md") == "See [the\ntable](results/trec.md)."


def test_links_of_copied_pages_are_relative_to_their_source() -> None:
    text = "[page](sources.md#top) and [decision](../../docs/decisions/kl-by-default.md)"
    expected = "[page](sources.md#top) and [decision](../decisions/kl-by-default.md)"
    assert site_markdown(text, "results/trec.md") == expected


def test_links_to_files_outside_of_the_site_become_names() -> None:
    assert (
        site_markdown("[recipe](../configs/mrpc.toml)", "index.md")
        == "recipe (`configs/mrpc.toml`)"
    )
    assert site_markdown("[x](no-such-page.md)", "index.md") == "[x](no-such-page.md)"


def test_code_and_other_links_stay() -> None:
    text = "```md\n[a](../benchmarks/results/trec.md)\n```\n[b](https://example.org) [c](#here)"
    assert site_markdown(text, "index.md") == text


def test_the_command_of_results_stands_once_at_the_end() -> None:
    page = "# Title\n\nA table.\n\n```sh\nmake x\n```\n"
    assert with_command("# Title\n\nA table.\n", "make x\n") == page
    assert with_command(page, "make x\n") == page
    assert with_command("# Title\n", None) == "# Title\n"


def test_every_page_is_in_the_navigation() -> None:
    listed = set(_values(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    for page in pages | set(copied_pages()) | set(GENERATED):
        folder = page.rpartition("/")[0] + "/"
        assert page in listed or folder in listed


def _values(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    entries = nav.values() if isinstance(nav, dict) else nav
    assert not isinstance(entries, str)
    values = []
    for entry in entries:  # type: ignore[attr-defined]
        values += _values(entry)
    return values
