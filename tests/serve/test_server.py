"""`kdedge serve` as a process: it starts, answers, and stops without losing a request."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import factories
import pytest
from kdedge_process import kdedge_command, run_kdedge

from kdedge.cli.serve import accepted_limits
from kdedge.errors import UsageError
from kdedge.runtime import Classifier

TEXTS = list(factories.sentences(64, seed=1)[0])


@contextmanager
def served(bundle: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a server; give the process and its port."""
    command = kdedge_command("serve", str(bundle), "--port", "0", *options)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            while "listening on" not in line:
                assert line, "the server ended"
                line = process.stderr.readline()
            yield process, int(line.rsplit(":", 1)[1])
        finally:
            process.kill()


def ask(connection: http.client.HTTPConnection, texts: list[str]) -> list[str]:
    connection.request("POST", "/predict", json.dumps({"texts": texts}))
    answer = connection.getresponse()
    document = json.loads(answer.read())
    assert answer.status == 200, document
    return [prediction["label"] for prediction in document["predictions"]]


@pytest.mark.slow
def test_sigterm_under_load_answers_every_accepted_request() -> None:
    """Clients count answers and connections that end; no answer may be cut or missing."""
    bundle = factories.tiny_bundle()
    expected = [prediction.label for prediction in Classifier.load(bundle).predict(TEXTS)]
    answered = [0] * 8
    broken: list[str] = []

    def client(number: int, port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        while True:
            try:
                connection.request("POST", "/predict", json.dumps({"texts": TEXTS}))
                answer = connection.getresponse()
            except (ConnectionError, http.client.RemoteDisconnected):
                return  # The server had closed the connection before it read the request.
            try:
                document = json.loads(answer.read())
                assert [item["label"] for item in document["predictions"]] == expected
            except Exception as error:
                broken.append(repr(error))
                return
            answered[number] += 1
            if answer.getheader("Connection") == "close":
                return

    with served(bundle) as (process, port):
        threads = [threading.Thread(target=client, args=(i, port)) for i in range(8)]
        for thread in threads:
            thread.start()
        while sum(answered) < 100:
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert process.wait(20) == 0
        assert process.stderr is not None
        counted = re.search(r"answered (\d+) of (\d+) requests", process.stderr.read())
    assert not broken
    assert counted is not None
    assert counted.group(1) == counted.group(2)
    assert int(counted.group(1)) == sum(answered)


@pytest.mark.slow
def test_cascade_over_two_servers(tmp_path: Path) -> None:
    """A server with a teacher answers as the cascade in Python does."""
    student = factories.bundle_with_agreement(tmp_path)
    teacher = factories.tiny_bundle("bilstm")
    with served(teacher) as (_, teacher_port):
        url = f"http://127.0.0.1:{teacher_port}/predict"
        options = ("--teacher", url, "--agreement", "0.9", "--audit-share", "1")
        with served(student, *options) as (_, port):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            labels = ask(connection, TEXTS)
            connection.request("GET", "/metrics")
            metrics = connection.getresponse().read().decode()
    expected = Classifier.load(teacher).predict(TEXTS)
    assert labels == [prediction.label for prediction in expected]
    audited = re.search(r"^kdedge_cascade_audited ([\d.]+)$", metrics, re.MULTILINE)
    assert audited is not None
    assert float(audited.group(1)) > 0


def test_the_queue_holds_the_largest_request() -> None:
    with pytest.raises(UsageError, match="at least --max-texts"):
        accepted_limits(max_body=1000, max_texts=256, max_queue=100, max_batch=32)
    assert accepted_limits(1000, 100, 100, 32).queue == 100


def test_port_in_use_is_named() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run_kdedge("serve", str(factories.tiny_bundle()), "--port", str(port))
    assert result.returncode == 4
    assert "cannot listen" in result.stderr
