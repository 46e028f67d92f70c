"""Read the code blocks, inline code and headings of the documentation's pages.

A comment before a block says what tests do with it:

    <!-- run -->              run the block: shell commands of kdedge, or a Python program
    <!-- not run: REASON -->  the block needs what tests do not have
    <!-- file: NAME -->       save the block as a file for later blocks
    <!-- append: NAME -->     add the block to such a file

A comment anywhere in a page says what the reader has made on an earlier page:

    <!-- starts with: NAME -->

The blocks of a page run in order in one folder. Python programs do not share variables.
`pip install` is not run; the package and its extras must exist in pyproject.toml.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from links import GENERATED

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

FENCE = re.compile(r"^\s*```(\w*)")
MARK = re.compile(r"^<!-- (run|(?:not run|file|append): .+) -->$")
START = re.compile(r"^<!-- starts with: (.+) -->$", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
LAUNCHERS = ("accelerate launch -m ", "torchrun --nproc_per_node 2 -m ")
"""What may stand before `kdedge` in a command line."""


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        place: File and line, for messages.
        language: Such as `sh`, `toml` or `python`; "" if it names none.
        mark: Such as `run` or `file: reviews.toml`; "" without a comment.
    """

    place: str
    language: str
    text: str
    mark: str

    @property
    def is_run(self) -> bool:
        return self.mark == "run"

    def save(self, folder: Path) -> bool:
        """Write the block to the file that its mark names; return whether it names one."""
        kind, _, name = self.mark.partition(": ")
        if kind not in ("file", "append"):
            return False
        with (folder / name).open("a" if kind == "append" else "w", encoding="utf-8") as stream:
            stream.write(self.text)
        return True


def pages() -> list[Path]:
    """Return README.md and all pages in docs/ that people write."""
    generated = {DOCS / page for page in GENERATED}
    return [ROOT / "README.md", *sorted({*DOCS.rglob("*.md")} - generated)]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    mark, language = "", None
    lines: list[str] = []
    first = 0
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = FENCE.match(line)
        if language is not None and not fence:
            lines.append(line)
        elif language is not None:
            yield Block(f"{name_of(page)}:{first}", language, "\n".join(lines) + "\n", mark)
            mark, language = "", None
        elif fence:
            language, lines, first = fence.group(1), [], number
        elif line.strip():
            found = MARK.match(line)
            mark = found.group(1) if found else ""


def starts_of(page: Path) -> list[str]:
    """Return what the reader has before the first block of a page."""
    return START.findall(page.read_text(encoding="utf-8"))


def prose_of(page: Path) -> str:
    """Return a page without its fenced blocks."""
    lines, fenced = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            lines.append(line)
    return "\n".join(lines)


def inline_code(page: Path) -> list[str]:
    """Return the code spans of a page."""
    return [" ".join(span.split()) for span in INLINE.findall(prose_of(page))]


def kdedge_arguments(line: str) -> list[str] | None:
    """Return the arguments of a command line of kdedge; None for other lines."""
    line = line.strip().removeprefix(".venv/bin/")
    for launcher in LAUNCHERS:
        line = line.removeprefix(launcher)
    if not line.startswith("kdedge "):
        return None
    return shlex.split(line, comments=True)[1:]


def command_lines(text: str) -> Iterator[str]:
    """Yield the lines of a shell block; `&&` separates commands, a backslash continues a line."""
    for line in text.replace("\\\n", " ").splitlines():
        yield from re.split(r"\s+&&\s+", line)
