"""Run kdedge's command line in a process of its own, from a checkout that may not be installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def kdedge_command(*arguments: str) -> list[str]:
    """Return the command line that starts kdedge."""
    return [sys.executable, __file__, *arguments]


def run_kdedge(
    *arguments: str, folder: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run kdedge in a folder and capture its output."""
    return subprocess.run(
        kdedge_command(*arguments),
        capture_output=True,
        text=True,
        timeout=400,
        cwd=folder,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    import conftest  # noqa: F401

    from kdedge.cli.main import main

    main()
