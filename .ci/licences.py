"""Write the table of docs/licences.md: the licence of every package in configs/locks/.

    .venv/bin/python .ci/licences.py           # write the table
    .venv/bin/python .ci/licences.py --check   # exit with 1 if a locked package is not in it

Licences are read from the installed distributions. A package that is not installed here, such as
one for Windows, keeps its row. A new one without a licence is an error: install it, or add it to
`BY_HAND`.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from kdedge.io.licences import package_licence

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "configs" / "locks"
PAGE = ROOT / "docs" / "licences.md"
START, END = "<!-- table: .ci/licences.py -->", "<!-- end of table -->"

USES = {
    "device": "run bundles",
    "train": "train and export",
    "serve": "serve over HTTP",
    "dev": "tune, sign, quick start, tests",
    "docs": "build this site",
    "audit": "audit",
}
"""Lock -> what its packages are for; a package gets the first use that lists it."""

BY_HAND = {
    "appnope": "BSD-2-Clause",
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",
    "httpx2-jsfetch": "BSD-3-Clause",
    "tomli": "MIT",
}
"""Packages for other systems or versions of Python, and one whose metadata name no licence."""

REQUIREMENT = re.compile(r"^([a-z0-9][a-z0-9._-]*)==", re.MULTILINE)
ROW = re.compile(r"^\| ([a-z0-9]\S*) \| (.+) \| (.+) \|$", re.MULTILINE)


def locked_packages() -> dict[str, str]:
    """Return every locked package -> what it is for."""
    uses: dict[str, str] = {}
    for lock, use in USES.items():
        for name in REQUIREMENT.findall((LOCKS / f"{lock}.txt").read_text(encoding="utf-8")):
            uses.setdefault(name, use)
    return uses


def listed_licences(page: str) -> dict[str, str]:
    """Return the rows of the page's table: package -> licence."""
    table = page.partition(START)[2].partition(END)[0]
    return {name: licence for name, licence, _ in ROW.findall(table)}


def problems(page: str) -> list[str]:
    """Return what is wrong with the table of a page."""
    listed = listed_licences(page)
    locked = locked_packages()
    lines = [f"{name}: locked, but not listed" for name in sorted(locked.keys() - listed.keys())]
    lines += [f"{name}: listed, but not locked" for name in sorted(listed.keys() - locked.keys())]
    for name in sorted(locked.keys() & listed.keys()):
        licence = package_licence(name)
        if licence is not None and licence != listed[name]:
            lines.append(f"{name}: the licence is {licence}, not {listed[name]}")
    return lines


def new_table(page: str) -> str:
    """Return the table of all locked packages. Raises SystemExit if a licence is unknown."""
    listed = listed_licences(page)
    rows = ["| package on PyPI | licence | needed to |", "| --- | --- | --- |"]
    unknown = []
    for name, use in sorted(locked_packages().items()):
        licence = package_licence(name) or BY_HAND.get(name) or listed.get(name)
        if licence is None:
            unknown.append(name)
        rows.append(f"| {name} | {licence} | {use} |")
    if unknown:
        sys.exit(f"no licence known for {', '.join(unknown)}: install them, or add them to BY_HAND")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only check that the page is complete")
    is_check = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    if is_check:
        sys.exit("\n".join(problems(page)) or 0)
    before, _, rest = page.partition(START)
    after = rest.partition(END)[2]
    table = new_table(page)
    PAGE.write_text(f"{before}{START}\n\n{table}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
