"""`make audit`: a vulnerability is an error; without a network nothing is called audited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import audit
import pytest

GOOD = {"name": "click", "version": "8.5.1", "vulns": []}
BAD = {
    "name": "rich",
    "version": "15.0.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["15.0.1"], "aliases": [], "description": ""}],
}
SKIPPED = {"name": "numpy", "skip_reason": "Dependency not found on PyPI"}


def run(
    monkeypatch: pytest.MonkeyPatch, entries: list[dict[str, Any]], *words: str, github: str = ""
) -> int:
    monkeypatch.setenv("GITHUB_ACTIONS", github)
    monkeypatch.setattr(audit, "run_pip_audit", lambda lock: entries)
    return audit.main(list(words))


@pytest.mark.parametrize(
    "entries, relaxed, strict, words",
    [
        ([GOOD], 0, 0, "1 packages audited, 0 found"),
        ([GOOD, BAD], 1, 1, "rich 15.0.0: PYSEC-1, fixed in 15.0.1"),
        ([GOOD, SKIPPED], 0, 1, "not audited: numpy"),
        ([SKIPPED], 0, 1, "nothing was audited"),
        ([], 0, 1, "nothing was audited"),
    ],
)
def test_the_exit_code_and_the_words(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    entries: list[dict[str, Any]],
    relaxed: int,
    strict: int,
    words: str,
) -> None:
    assert run(monkeypatch, entries) == relaxed
    assert words in capsys.readouterr().out
    assert run(monkeypatch, entries, "--strict") == strict
    assert run(monkeypatch, entries, github="true") == strict


def test_every_lock_is_audited() -> None:
    """The packages of the locks that are left out stand in dev.txt.

    optimum.txt is the environment of one test, with old versions.
    """
    packages = {path.stem: _packages(path) for path in audit.LOCKS.glob("*.txt")}
    del packages["optimum"]
    covered = set().union(*(packages[name] for name in audit.CHOSEN))
    assert set().union(*packages.values()) == covered


def _packages(path: Path) -> set[str]:
    return {line.split()[0] for line in path.read_text().splitlines() if "==" in line}


def test_a_pip_audit_that_fails_gives_no_entries(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert audit.run_pip_audit(tmp_path / "missing.txt") == []
    assert "missing.txt: pip-audit ended with" in capsys.readouterr().err
