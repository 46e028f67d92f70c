"""Ask PyPI whether a locked package has a known vulnerability, with pip-audit.

    make audit                                # installs pip-audit from configs/locks/audit.txt
    .venv/bin/python .ci/audit.py --strict    # a package that was not audited is an error, too

Exits with 1 if there is a vulnerability. Without a network nothing is audited: that is said, and
it is an error only with --strict or on GitHub.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCKS = Path(__file__).resolve().parents[1] / "configs" / "locks"
CHOSEN = ("dev", "docs", "audit")
"""Locks to audit: dev.txt holds all packages of device.txt and train.txt."""

SHOWN = 8


@dataclass(frozen=True)
class Findings:
    """What an audit found.

    Attributes:
        audited: Packages about which the service knew something, as `name version`.
        skipped: Packages that were not audited.
        vulnerable: One line for each vulnerability.
    """

    audited: frozenset[str]
    skipped: frozenset[str]
    vulnerable: tuple[str, ...]

    def exit_code(self, *, strict: bool) -> int:
        """Return 1 if there is a vulnerability, or with `strict` if a package was not audited."""
        is_incomplete = bool(self.skipped) or not self.audited
        return int(bool(self.vulnerable) or (strict and is_incomplete))

    def report(self) -> str:
        """Return the result as lines for people."""
        lines = list(self.vulnerable)
        if not self.audited:
            lines.append("nothing was audited: the service of vulnerabilities cannot be reached")
            return "\n".join(lines)
        if self.skipped:
            names = sorted(self.skipped)
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            lines.append(f"not audited: {', '.join(names[:SHOWN])}{more}")
        lines.append(f"{len(self.audited)} packages audited, {len(self.vulnerable)} found")
        return "\n".join(lines)


def run_pip_audit(lock: Path) -> list[dict[str, Any]]:
    """Return what pip-audit says about the packages of a lock; [] if it could not ask."""
    # The locks are complete and have hashes: pip has nothing to resolve.
    options = ["--disable-pip", "--require-hashes", "--format=json", "--progress-spinner=off"]
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", *options, "--requirement", str(lock)],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return list(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError, TypeError):
        message = done.stderr.strip().rpartition("\n")[2]
        sys.stderr.write(f"{lock.name}: pip-audit ended with {done.returncode}: {message}\n")
        return []


def findings_of(entries: Iterable[dict[str, Any]]) -> Findings:
    """Sort the entries of pip-audit; it calls a package without an answer skipped, not failed."""
    audited: set[str] = set()
    skipped: set[str] = set()
    vulnerable: dict[str, None] = {}
    for entry in entries:
        if "skip_reason" in entry:
            skipped.add(entry["name"])
            continue
        package = f"{entry['name']} {entry['version']}"
        audited.add(package)
        for vulnerability in entry["vulns"]:
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
            vulnerable[f"{package}: {vulnerability['id']}, fixed in {fixed}"] = None
    return Findings(frozenset(audited), frozenset(skipped), tuple(vulnerable))


def main(arguments: list[str] | None = None) -> int:
    """Audit the locks and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--strict", action="store_true", help="a package that was not audited is an error"
    )
    strict = parser.parse_args(arguments).strict or os.environ.get("GITHUB_ACTIONS") == "true"
    entries = []
    for name in CHOSEN:
        entries += run_pip_audit(LOCKS / f"{name}.txt")
    findings = findings_of(entries)
    sys.stdout.write(findings.report() + "\n")
    return findings.exit_code(strict=strict)


if __name__ == "__main__":
    sys.exit(main())
