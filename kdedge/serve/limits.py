"""The limits of a server, and the error for a request that it refuses."""

from __future__ import annotations

from dataclasses import dataclass

from kdedge.errors import KdedgeError


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
        body: Most bytes of a request.
        texts: Most texts of a request.
        queue: Most texts that wait. More are refused with status 429.
        batch: Most texts that the model reads at once.
        seconds: Longest time to receive a request, and to answer it.
    """

    body: int = 1 << 20
    texts: int = 256
    queue: int = 2048
    batch: int = 32
    seconds: float = 30.0


class RequestError(KdedgeError):
    """A request that is refused.

    Args:
        status: The HTTP status.
        message: The rule that was broken.
        detail: What broke it.
        hint: What the client can do.
    """

    def __init__(self, status: int, message: str, detail: str = "", hint: str = "") -> None:
        self.status = status
        super().__init__(message, detail, hint)


def busy(waiting: int, limits: Limits) -> RequestError:
    """Return the error for a request that finds too many texts waiting."""
    return RequestError(
        429,
        "the server is busy",
        f"{waiting} texts wait, and at most {limits.queue} may",
        "send the request again in a second",
    )
