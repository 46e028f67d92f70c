"""Add the copied pages to the site. MkDocs calls these functions."""

from __future__ import annotations

from typing import Any

from kdedge.benchmarks.studies.index_results import TOPICS, read_pages
from links import DOCS, ROOT, copied_pages, page_of, site_markdown, with_command
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

FOLDERS_IN_NAV = ("Results", "Decisions")
"""Entries of `nav` whose value is a folder: they list all its pages, results by topic."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace folders in `nav` by their pages."""
    _expand(config.nav or [])
    return config


def _expand(entries: list[Any]) -> None:
    for entry in entries:
        for title, value in entry.items():
            if isinstance(value, list):
                _expand(value)
            elif title in FOLDERS_IN_NAV:
                entry[title] = _results() if title == "Results" else _pages_in(value)


def _results() -> list[Any]:
    """List the results pages: the index first, then a group for each topic."""
    groups: dict[str, list[str | None]] = {heading: [] for heading in TOPICS.values()}
    for page in read_pages():
        file = page.path.relative_to(ROOT).as_posix()
        groups[TOPICS[page.front_matter["topic"]]].append(page_of(file))
    return ["results/index.md", *({heading: pages} for heading, pages in groups.items())]


def _pages_in(folder: str) -> list[str]:
    """List the pages of a folder, its index first."""
    in_docs = {path.relative_to(DOCS).as_posix() for path in (DOCS / folder).glob("*.md")}
    copied = {page for page in copied_pages() if page.startswith(folder)}
    return sorted(in_docs | copied, key=lambda page: (not _is_index(page), page))


def _is_index(page: str) -> bool:
    return page.endswith(("index.md", "README.md"))


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that do not stand in docs/."""
    for page, path in copied_pages().items():
        content = path.read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Point the links of a page to other pages of the site, and add the command of its results.

    A page with results has a wide table: it gets the room of the table of contents.
    """
    command = page.meta.get("command")
    if command:
        page.meta["hide"] = ["toc"]
    return with_command(site_markdown(markdown, page.file.src_uri), command)
