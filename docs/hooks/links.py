"""Where the files of the repository stand on the site, and links between them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

OUTSIDE = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
}
"""File at the top of the repository -> its page on the site."""

RESULTS = "benchmarks/results"

GENERATED = ("reference/recipe.md", "reference/command-line.md")
"""Pages that `make reference` writes from the code."""

LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
FENCE = re.compile(r"^\s*(```|~~~)")


def copied_pages() -> dict[str, Path]:
    """Return page -> file for the pages that stand outside of docs/."""
    pages = {page: ROOT / name for name, page in OUTSIDE.items()}
    for path in sorted((ROOT / RESULTS).glob("*.md")):
        name = "index.md" if path.name == "README.md" else path.name
        pages[f"results/{name}"] = path
    return pages


def source_of(page: str) -> str:
    """Return the file in the repository that a page comes from."""
    path = copied_pages().get(page)
    return path.relative_to(ROOT).as_posix() if path else f"docs/{page}"


def page_of(file: str) -> str | None:
    """Return the page of a file in the repository, or None if it is not on the site."""
    if file in OUTSIDE:
        return OUTSIDE[file]
    folder, name = posixpath.split(file)
    if folder == RESULTS and name.endswith(".md"):
        return f"results/{'index.md' if name == 'README.md' else name}"
    if not file.startswith("docs/") or not file.endswith(".md"):
        return None
    page = file.removeprefix("docs/")
    return page if (DOCS / page).is_file() else None


def target_of(source: str, link: str) -> str:
    """Return the file in the repository that a relative link in `source` names."""
    path = link.partition("#")[0]
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), path))


def is_relative(link: str) -> bool:
    return not re.match(r"[a-z]+:|#|/", link)


def site_markdown(markdown: str, page: str) -> str:
    """Rewrite the links of a page from places in the repository to places on the site.

    A link to a file that is not on the site becomes the name of the file.
    """
    source = source_of(page)
    folder = posixpath.dirname(page)

    def rewrite(match: re.Match[str]) -> str:
        text, link = match.groups()
        if not is_relative(link):
            return match.group()
        file = target_of(source, link)
        target = page_of(file)
        if target is not None:
            anchor = link[link.index("#") :] if "#" in link else ""
            return f"[{text}]({posixpath.relpath(target, folder or '.')}{anchor})"
        if (ROOT / file).exists():
            return text if text.startswith("`") else f"{text} (`{file}`)"
        return match.group()

    parts = []
    for text, is_code in _parts(markdown):
        parts.append(text if is_code else LINK.sub(rewrite, text))
    return "".join(parts)


def with_command(markdown: str, command: str | None) -> str:
    """Add the command of a results page, which its front matter states: the site hides that."""
    if command is None or command in markdown:
        return markdown
    return f"{markdown.rstrip()}\n\n```sh\n{command.strip()}\n```\n"


def relative_links(markdown: str) -> Iterator[str]:
    """Yield the relative links of a page."""
    for text, is_code in _parts(markdown):
        if is_code:
            continue
        for match in LINK.finditer(text):
            if is_relative(match.group(2)):
                yield match.group(2)


def _parts(markdown: str) -> Iterator[tuple[str, bool]]:
    """Split a page into fenced blocks and the text between; a link may span lines of the text."""
    lines: list[str] = []
    fenced = False
    for line in markdown.splitlines(keepends=True):
        if not FENCE.match(line):
            lines.append(line)
        elif fenced:
            yield "".join([*lines, line]), True
            lines, fenced = [], False
        else:
            yield "".join(lines), False
            lines, fenced = [line], True
    yield "".join(lines), fenced
