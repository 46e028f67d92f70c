"""Serve a written web page, and open it in headless Chromium with playwright."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser import require_chromium
from kdedge.export.web_libraries import install_packages

WEB = Path(__file__).with_name("web")


def require_node() -> str:
    """Return node's command; without it and npm, tests fail in CI and skip elsewhere."""
    node = shutil.which("node")
    if node and shutil.which("npm"):
        return node
    message = "Node.js with npm is not installed"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@cache
def installed_modules() -> Path:
    """Return node_modules with the packages that tests use."""
    return install_packages(WEB, "tests")


def run_node(script: str, *arguments: object, given: Any = None) -> Any:
    """Run a script of tests/web with a JSON document on stdin; return the JSON of its last line."""
    done = subprocess.run(
        [require_node(), WEB / script, *map(str, arguments)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """Serve a folder as `python -m http.server` does; give the port."""
    handler = functools.partial(_QuietHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def browse(folder: Path, task: str, host: str = "127.0.0.1", **values: Any) -> Any:
    """Do a task of tests/web/browse.mjs on the page in a folder."""
    require_node()
    chromium = require_chromium()
    with served(folder) as port:
        request = {
            "task": task,
            "chromium": chromium,
            "address": f"http://{host}:{port}/",
            **values,
        }
        return run_node("browse.mjs", installed_modules(), given=request)
