"""`kdedge serve`: answer over HTTP with a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from kdedge.cli.console import print_message
from kdedge.cli.options import (
    FiniteRange,
    ProviderOptions,
    default_option,
    digest_option,
    option_group,
    provider_options,
)

if TYPE_CHECKING:
    from kdedge.runtime import Classifier
    from kdedge.serve.engine import Engine
    from kdedge.serve.limits import Limits
    from kdedge.serve.metrics import ServerMetrics


@dataclass(frozen=True)
class Address:
    """Where the server listens."""

    host: str
    port: int


@dataclass(frozen=True)
class CascadeOptions:
    """The teacher of a cascade, if there is one, and the promise of the cascade."""

    teacher: str | None
    agreement: float
    audit_share: float


def accepted_limits(max_body: int, max_texts: int, max_queue: int, max_batch: int) -> Limits:
    """Convert the options of the command line.

    Raises UsageError if the largest request would never be accepted.
    """
    from kdedge.errors import UsageError
    from kdedge.serve.limits import Limits

    if max_queue < max_texts:
        raise UsageError(
            "--max-queue must be at least --max-texts",
            f"{max_queue} and {max_texts}",
            "raise --max-queue or lower --max-texts",
        )
    return Limits(body=max_body, texts=max_texts, queue=max_queue, batch=max_batch)


@click.command()
@click.argument("bundle")
@option_group(
    "address",
    Address,
    default_option("--host", click.STRING, "127.0.0.1", "Address to listen on."),
    default_option("--port", click.IntRange(0, 65535), 8000, "Port; 0 takes any free one."),
)
@option_group(
    "cascade",
    CascadeOptions,
    click.option(
        "--teacher",
        metavar="URL_OR_BUNDLE",
        help="Teacher for the texts that the student is not sure about: the address of /predict of "
        "another `kdedge serve`, or a bundle.",
    ),
    default_option(
        "--agreement",
        FiniteRange(0, 1, min_open=True, max_open=True),
        0.99,
        "Share of the student's own answers that must agree with the teacher.",
    ),
    default_option(
        "--audit-share",
        FiniteRange(0, 1),
        0.01,
        "Share of the student's own answers that the teacher checks.",
    ),
)
@option_group(
    "limits",
    accepted_limits,
    default_option("--max-body", click.IntRange(min=1), 1 << 20, "Most bytes of a request."),
    default_option("--max-texts", click.IntRange(min=1), 256, "Most texts of a request."),
    default_option("--max-queue", click.IntRange(min=1), 2048, "Most texts that wait."),
    default_option("--max-batch", click.IntRange(min=1), 32, "Most texts of a batch."),
)
@default_option("--threads", click.IntRange(min=1), 1, "Threads of the model.")
@provider_options
@digest_option
def serve(
    bundle: str,
    address: Address,
    cascade: CascadeOptions,
    limits: Limits,
    threads: int,
    execution: ProviderOptions,
    digest: str | None,
) -> None:
    """Answer over HTTP with BUNDLE: a folder, a zip, or a hub id.

    POST /predict reads {"texts": [...]}. GET /healthz has status 200 while the server answers,
    /metrics has Prometheus metrics, /docs shows the interface and /openapi.json describes it.

    With --teacher, the student answers the texts on which it is likely to agree with the teacher,
    and the teacher answers the others.

    SIGTERM and SIGINT stop the server after it has answered all accepted requests.

    \b
    Example: kdedge serve runs/quickstart/bilstm/bundle --port 8000
    """
    from kdedge.io.optional import named_extra

    with named_extra("`kdedge serve`"):
        from kdedge.serve.app import make_app
        from kdedge.serve.metrics import ServerMetrics
        from kdedge.serve.server import listen, run_server

    from kdedge.runtime import Classifier

    metrics = ServerMetrics()
    classifier = Classifier.load(
        bundle,
        provider=execution.provider,
        threads=threads,
        digest=digest,
        fallback=execution.fallback,
    )
    engine = _engine(classifier, cascade, limits, metrics)
    app = make_app(engine, classifier.manifest, limits, metrics)
    with listen(address.host, address.port) as listening:
        port = listening.getsockname()[1]
        host = f"[{address.host}]" if ":" in address.host else address.host
        print_message(f"{classifier.manifest.name}: listening on http://{host}:{port}")
        run_server(app, listening)
    print_message(f"stopped: answered {metrics.answered} of {metrics.accepted} requests")


def _engine(
    classifier: Classifier, options: CascadeOptions, limits: Limits, metrics: ServerMetrics
) -> Engine:
    from kdedge.cascade import Cascade, HttpTeacher
    from kdedge.serve.engine import CascadeEngine, ClassifierEngine

    if options.teacher is None:
        return ClassifierEngine(classifier, limits, metrics)
    teacher: str | HttpTeacher = options.teacher
    if "://" in options.teacher:
        # A teacher that hangs is noticed before the request itself takes too long.
        teacher = HttpTeacher(options.teacher, timeout=limits.seconds / 2)
    cascade = Cascade(classifier, teacher, options.agreement, audit_share=options.audit_share)
    threshold = cascade.threshold
    print_message(
        f"the student answers alone from a confidence of {threshold.confidence:.4f} on: "
        f"{threshold.share:.1%} of {threshold.texts} validation texts; agreement at least "
        f"{threshold.lower_bound:.2%} with 95 % confidence"
    )
    return CascadeEngine(cascade, limits, metrics)
