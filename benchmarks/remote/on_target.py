"""Run on the target: install kdedge, bench bundles, send the results back, and clean up.

`kdedge bench --remote` sends the text of this file to a Python that may have nothing installed and
may be too old. It therefore imports only the standard library and parses on Python 3.6.

stdin holds this file, one line of JSON (see `request.py`), and a tar of all files. It stays open
until the results have arrived: if it ends before, nobody waits for them. stdout gets the line
STARTED, and one line of JSON with the exit code and the files of the report.
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from typing import Any, Dict, List

STARTED = b"kdedge-bench-on-target-1\n"
OLDEST_PYTHON = (3, 11)
RESULT_FILES = ("report.json", "report.html", "report.md")
TAIL = 2000
"""Characters of a failed command's output that are sent back."""


class Failure(Exception):
    """A step failed. `reason` is a key of `REASONS` in failures.py."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Work:
    """The folder of this bench and the running command; `clean` removes and stops them."""

    def __init__(self) -> None:
        self.folder = ""
        self.process = None  # type: Any
        self.stopped = False
        self.lock = threading.Lock()
        """Held while a command starts: none may start after the clean-up."""

    def make_folder(self) -> None:
        """Make the folder in the home directory: on small machines /tmp is often in memory."""
        home = os.path.expanduser("~")
        writable = os.access(home, os.W_OK)
        self.folder = tempfile.mkdtemp(prefix="kdedge-bench-", dir=home if writable else None)

    def path(self, *names: str) -> str:
        return os.path.join(self.folder, *names)

    def run(
        self,
        command: List[str],
        stdout: Any,
        stderr: Any,
        cwd: str,
        **environment: str,
    ) -> Any:
        """Run a command, with temporary files in the folder; return exit code and output."""
        environment = dict(os.environ, TMPDIR=self.path("tmp"), **environment)
        with self.lock:
            if self.stopped:
                raise SystemExit(1)
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                env=environment,
                start_new_session=True,
            )
        output = self.process.communicate()[0]
        code, self.process = self.process.returncode, None
        return code, (output or b"").decode("utf-8", "replace")

    def clean(self) -> None:
        """Stop the command and remove the folder."""
        with self.lock:
            self.stopped = True
            process = self.process
        if process is not None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
            # A stopped command may have written a last file.
            shutil.rmtree(self.folder, ignore_errors=True)


def clean_up_when_alone(work: Work) -> None:
    """Clean up and exit as soon as stdin ends: then the other side is gone."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        work.clean()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def say(line: str) -> None:
    sys.stderr.write("target: " + line + "\n")
    sys.stderr.flush()


def check_python() -> None:
    if sys.version_info < OLDEST_PYTHON:
        raise Failure("python", "Python " + sys.version.split()[0] + " at " + sys.executable)


def unpack(work: Work) -> None:
    """Unpack the tar on stdin into the folder of this bench."""
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|", bufsize=tarfile.RECORDSIZE) as archive:
        # Python 3.11.4 and newer have filters, and warn without one.
        filters = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # type: Any
        archive.extractall(work.folder, **filters)
    for name in ("tmp", "bundles"):
        os.makedirs(work.path(name), exist_ok=True)


def install(work: Work, wheels: bool) -> str:
    """Make a virtual environment with kdedge and what a device needs; return its Python."""
    say("making a virtual environment with " + sys.executable)
    venv = work.path("venv")
    merged = subprocess.STDOUT
    command = [sys.executable, "-m", "venv", venv]
    code, output = work.run(command, subprocess.PIPE, merged, work.folder)
    if code:
        raise Failure(_reason("venv", output), output.strip()[-TAIL:])
    python = os.path.join(venv, "bin", "python")
    say("installing kdedge and its dependencies")
    command = [python, "-m", "pip", "install", "--quiet", "--no-input", "--no-cache-dir"]
    command.append("--disable-pip-version-check")
    if wheels:
        command += ["--no-index", "--find-links", work.path("wheels")]
    wheel = os.listdir(work.path("kdedge"))[0]
    command.append(work.path("kdedge", wheel))
    code, output = work.run(command, subprocess.PIPE, merged, work.folder)
    if code:
        raise Failure(_reason("install", output), output.strip()[-TAIL:])
    return python


def _reason(reason: str, output: str) -> str:
    return "disk" if "no space left on device" in output.lower() else reason


def check_installed(work: Work) -> str:
    """Return the path of this Python. Raises Failure if it has no kdedge."""
    command = [sys.executable, "-c", "import kdedge.benchmarks.bench"]
    home = work.path("tmp")
    code, output = work.run(command, subprocess.PIPE, subprocess.STDOUT, work.folder, HOME=home)
    if code:
        raise Failure("kdedge", sys.executable + ": " + output.strip()[-TAIL:])
    return sys.executable


def bench(work: Work, python: str, arguments: List[str]) -> int:
    """Run the bench; its progress and its errors go to stderr as they are."""
    say("running the bench")
    command = [python, "-m", "kdedge", "bench", *arguments, "--out", "../report"]
    # Libraries write caches into the home directory: these are removed too.
    home = work.path("tmp")
    code, _ = work.run(command, subprocess.DEVNULL, None, work.path("bundles"), HOME=home)
    return int(code)


def results(work: Work) -> Dict[str, str]:
    """Return file name -> base64 of its content."""
    found = {}
    for name in RESULT_FILES:
        path = work.path("report", name)
        if os.path.isfile(path):
            with open(path, "rb") as stream:
                found[name] = base64.b64encode(stream.read()).decode("ascii")
    return found


def python_with_kdedge(work: Work, request: Dict[str, Any]) -> str:
    if request["installed"]:
        return check_installed(work)
    return install(work, request["wheels"])


def answer(work: Work, request: Dict[str, Any]) -> Dict[str, Any]:
    """Run all steps; return the document that is sent back."""
    try:
        check_python()
        work.make_folder()
        unpack(work)
        clean_up_when_alone(work)
        python = python_with_kdedge(work, request)
        code = bench(work, python, request["arguments"])
        return {"code": code, "files": results(work)}
    except Failure as failure:
        return {"reason": failure.reason, "detail": failure.detail}
    except (OSError, tarfile.TarError) as error:
        full = isinstance(error, OSError) and error.errno == 28
        return {"reason": "disk" if full else "system", "detail": str(error)}


def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    signal.signal(signal.SIGHUP, lambda number, frame: sys.exit(1))
    output = sys.stdout.buffer
    output.write(STARTED)
    output.flush()
    work = Work()
    try:
        request = json.loads(sys.stdin.buffer.readline().decode("ascii"))
        document = answer(work, request)
    finally:
        work.clean()
    output.write(json.dumps(document).encode("ascii") + b"\n")
    output.flush()


if __name__ == "__main__":
    main()
