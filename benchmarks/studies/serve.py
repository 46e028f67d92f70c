"""What does HTTP cost? Throughput of `kdedge serve` against the bare session, and its latency.

    python benchmarks/studies/serve.py runs/quickstart/bilstm/bundle texts.txt --seconds 60

The server uses the first core and the client the second one. First the bare session and the
classifier classify single texts in a loop. Then 32 connections ask as fast as they can, one text
a request: that is the capacity. Last, requests arrive at random (Poisson) at 80 % of it; the
latency of a request counts from the moment at which it should have been sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kdedge.runtime import Classifier

CONNECTIONS = 32
OPEN_CONNECTIONS = 128
"""Connections of the open loop; a request waits if all are busy."""

LOAD = 0.8
SERVER_CORE, CLIENT_CORE = 0, 1


@dataclass
class Answers:
    """Latencies in seconds, and the number of answers by status."""

    latencies: list[float] = field(default_factory=list)
    status: dict[int, int] = field(default_factory=dict)

    def add(self, status: int, seconds: float) -> None:
        self.status[status] = self.status.get(status, 0) + 1
        self.latencies.append(seconds)

    def quantile(self, share: float) -> float:
        return 1e3 * float(np.quantile(self.latencies, share))


class Connection:
    """One HTTP connection that stays open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> int:
        """Send a request, read the whole answer, and return its status."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert length is not None
        await self._reader.readexactly(int(length[1]))
        return int(head.split(b" ", 2)[1])


def http_request(text: str) -> bytes:
    body = json.dumps({"texts": [text]}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def closed_loop(port: int, requests: Sequence[bytes], seconds: float) -> float:
    """Return the answers per second of connections that ask without a pause."""
    end = time.perf_counter() + seconds
    count = 0

    async def client(number: int) -> None:
        nonlocal count
        connection = await Connection.open(port)
        i = number
        while time.perf_counter() < end:
            assert await connection.ask(requests[i % len(requests)]) == 200
            count += 1
            i += CONNECTIONS

    start = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(CONNECTIONS)))
    return count / (time.perf_counter() - start)


async def open_loop(port: int, requests: Sequence[bytes], rate: float, seconds: float) -> Answers:
    """Send requests at random times, `rate` a second on average."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(OPEN_CONNECTIONS):
        free.put_nowait(await Connection.open(port))
    answers = Answers()
    chance = random.Random(0)
    tasks = set()

    async def send(due: float, request: bytes) -> None:
        connection = await free.get()
        status = await connection.ask(request)
        answers.add(status, time.perf_counter() - due)
        free.put_nowait(connection)

    start = due = time.perf_counter()
    while due < start + seconds:
        pause = due - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        task = asyncio.create_task(send(due, chance.choice(requests)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        due += chance.expovariate(rate)
    await asyncio.gather(*tasks)
    return answers


def per_second(function: Callable[[str], object], texts: Sequence[str], seconds: float) -> float:
    """Return how many single texts a function handles in a second."""
    for text in texts[:50]:
        function(text)
    count = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        function(texts[count % len(texts)])
        count += 1
    return count / (time.perf_counter() - start)


def start_server(bundle: Path) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "kdedge", "serve", str(bundle), "--port", "0"]
    process = subprocess.Popen(
        ["taskset", "-c", str(SERVER_CORE), *command], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "listening on" in line:
            return process, int(line.rsplit(":", 1)[1])
    raise SystemExit("the server did not start")


def study() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("texts", type=Path, help="one text per line")
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    texts = [line for line in arguments.texts.read_text().splitlines() if line.strip()]
    os.sched_setaffinity(0, {SERVER_CORE})
    classifier = Classifier.load(arguments.bundle, threads=1)
    short = max(2.0, arguments.seconds / 6)
    encoded = {text: classifier.encode([text]) for text in texts}
    session = per_second(lambda text: classifier.run(encoded[text]), texts, short)
    predict = per_second(classifier.predict, texts, short)
    process, port = start_server(arguments.bundle)
    os.sched_setaffinity(0, {CLIENT_CORE})
    requests = [http_request(text) for text in texts]
    asyncio.run(closed_loop(port, requests, 2.0))
    capacity = asyncio.run(closed_loop(port, requests, short))
    answers = asyncio.run(open_loop(port, requests, LOAD * capacity, arguments.seconds))
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    print("| what | texts per second | p50 ms | p99 ms | errors |")
    print("| --- | --: | --: | --: | --: |")
    print(f"| bare session, tokens ready | {session:,.0f} | {1e3 / session:.3f} | – | – |")
    print(f"| `Classifier.predict` | {predict:,.0f} | {1e3 / predict:.3f} | – | – |")
    print(f"| `kdedge serve`, 32 connections without a pause | {capacity:,.0f} | – | – | 0 |")
    errors = len(answers.latencies) - answers.status.get(200, 0)
    rate = len(answers.latencies) / arguments.seconds
    print(
        f"| `kdedge serve`, random arrivals at {LOAD:.0%} of that | {rate:,.0f} "
        f"| {answers.quantile(0.5):.2f} | {answers.quantile(0.99):.2f} | {errors} |"
    )


if __name__ == "__main__":
    study()
