"""Run the web application until SIGINT or SIGTERM; then answer the accepted requests."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from kdedge.errors import MachineError

STOP_SECONDS = 30
"""Longest time after a signal for answers to accepted requests."""

BACKLOG = 2048
"""Connections that wait until they are accepted."""


def listen(host: str, port: int) -> socket.socket:
    """Open the socket of a server; port 0 takes any free port.

    Raises:
        MachineError: If the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise MachineError(
            "the server cannot listen on this address",
            f"{host}:{port}: {error.strerror or error}",
            "choose another one with --host and --port",
        ) from error


def run_server(app: Starlette, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM arrives.

    Then it accepts no more connections, and answers the requests that it has accepted.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    with _signals_end_quietly():
        uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def _signals_end_quietly() -> Iterator[None]:
    """Ignore the signal that uvicorn sends again after it has stopped."""
    names = (signal.SIGINT, signal.SIGTERM)
    handlers = {name: signal.signal(name, signal.SIG_IGN) for name in names}
    try:
        yield
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)
