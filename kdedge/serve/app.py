"""The web application: /predict, /healthz, /metrics, /docs and /openapi.json."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from kdedge.errors import DataError, KdedgeError, MachineError
from kdedge.runtime.manifest import Manifest
from kdedge.serve.engine import Engine
from kdedge.serve.limits import Limits, RequestError
from kdedge.serve.metrics import ServerMetrics
from kdedge.serve.openapi import docs_page, openapi_document
from kdedge.serve.requests import read_rows

logger = logging.getLogger(__name__)

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def make_app(
    engine: Engine, manifest: Manifest, limits: Limits, metrics: ServerMetrics
) -> Starlette:
    """Build the application.

    Args:
        engine: Classifies the texts.
        manifest: The manifest of the student's bundle.
        limits: Limits of requests and of the queue.
        metrics: Counts for /metrics.
    """
    handlers = _Handlers(engine, manifest, limits, metrics)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await engine.close()

    routes = [
        Route("/predict", handlers.predict, methods=["POST"]),
        Route("/healthz", handlers.health),
        Route("/metrics", handlers.metrics),
        Route("/openapi.json", handlers.openapi),
        Route("/docs", handlers.docs),
    ]
    errors = {HTTPException: _no_route, Exception: _unexpected}
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=errors)


class _Handlers:
    """The functions behind the routes."""

    def __init__(
        self, engine: Engine, manifest: Manifest, limits: Limits, metrics: ServerMetrics
    ) -> None:
        self._engine = engine
        self._manifest = manifest
        self._limits = limits
        self._metrics = metrics
        self._model = {"name": manifest.name, "digest": manifest.digest()}
        self._openapi = openapi_document(manifest, limits, cascade=engine.is_cascade)

    async def predict(self, request: Request) -> Response:
        self._metrics.accepted += 1
        try:
            response = await self._answer(request)
        except Exception:
            self._count(500)
            raise
        self._count(response.status_code)
        return response

    def _count(self, status: int) -> None:
        self._metrics.answered += 1
        self._metrics.requests.labels(str(status)).inc()

    async def _answer(self, request: Request) -> Response:
        try:
            rows = await read_rows(request, self._limits, pair=self._manifest.spec.pair)
            started = time.perf_counter()
            async with asyncio.timeout(self._limits.seconds):
                predictions = await self._engine.predict(rows)
        except RequestError as error:
            return _error(error, error.status)
        except DataError as error:
            return _error(error, 400)
        except MachineError as error:
            # The detail names the teacher's address, which callers need not know.
            logger.warning("%s", error)
            return _error(RequestError(502, error.message), 502)
        except TimeoutError:
            return _error(RequestError(504, "the answer took too long"), 504)
        except KdedgeError as error:
            return _error(error, 500)
        self._metrics.seconds.observe(time.perf_counter() - started)
        self._metrics.texts.inc(len(rows))
        return JSONResponse({"predictions": predictions, "model": self._model})

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "model": self._model})

    async def metrics(self, request: Request) -> Response:
        return Response(self._metrics.render(), media_type=METRICS_TYPE)

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(self._openapi)

    async def docs(self, request: Request) -> Response:
        return HTMLResponse(docs_page(self._openapi))


def _no_route(request: Request, error: Exception) -> Response:
    """Answer a request with a wrong path or method."""
    assert isinstance(error, HTTPException)
    detail = f"{request.method} {request.url.path}"[:200]
    message = RequestError(error.status_code, error.detail, detail, "GET /docs lists the paths")
    response = _error(message, error.status_code)
    response.headers.update(error.headers or {})
    return response


def _unexpected(_: Request, error: Exception) -> Response:
    """Answer a request on which the server itself failed; the log has the traceback."""
    return _error(RequestError(500, "the server failed", type(error).__name__), 500)


def _error(error: KdedgeError, status: int) -> JSONResponse:
    """Return an error as JSON with message, detail and hint."""
    content: dict[str, Any] = {"message": error.message}
    if error.detail:
        content["detail"] = error.detail
    if error.hint:
        content["hint"] = error.hint
    headers = {"Retry-After": "1"} if status == 429 else None
    return JSONResponse({"error": content}, status_code=status, headers=headers)
