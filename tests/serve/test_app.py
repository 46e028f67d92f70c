"""The web application: answers, errors, limits, metrics and its description."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from kdedge.errors import MachineError
from kdedge.runtime import Classifier
from kdedge.serve.app import make_app
from kdedge.serve.batching import Row
from kdedge.serve.engine import ClassifierEngine
from kdedge.serve.limits import Limits, RequestError
from kdedge.serve.metrics import ServerMetrics

LIMITS = Limits(body=10_000, texts=8)
TEXTS = ["the film was good", "", "好" * 90, "film " * 300]


def client_of(bundle: Path) -> TestClient:
    classifier = Classifier.load(bundle, threads=1)
    metrics = ServerMetrics()
    engine = ClassifierEngine(classifier, LIMITS, metrics)
    return TestClient(make_app(engine, classifier.manifest, LIMITS, metrics))


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with client_of(factories.tiny_bundle()) as opened:
        yield opened


def test_predictions_are_those_of_the_classifier(client: TestClient) -> None:
    answer = client.post("/predict", json={"texts": TEXTS})
    assert answer.status_code == 200
    classifier = Classifier.load(factories.tiny_bundle())
    expected = [prediction.to_json() for prediction in classifier.predict(TEXTS)]
    assert answer.json()["predictions"] == json.loads(json.dumps(expected))
    assert answer.json()["model"]["digest"] == classifier.manifest.digest()


def test_a_client_that_leaves_within_its_request_is_counted() -> None:
    """Half a body arrives, then the connection ends; nothing may reach the log as an error."""
    classifier = Classifier.load(factories.tiny_bundle(), threads=1)
    metrics = ServerMetrics()
    engine = ClassifierEngine(classifier, LIMITS, metrics)
    app = make_app(engine, classifier.manifest, LIMITS, metrics)
    arriving = [
        {"type": "http.request", "body": b'{"texts": [', "more_body": True},
        {"type": "http.disconnect"},
    ]
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return arriving.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        if "status" in message:
            statuses.append(message["status"])

    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
    scope |= {"query_string": b"", "root_path": ""}

    async def leave() -> None:
        await app(scope, receive, send)
        await engine.close()

    asyncio.run(leave())
    assert statuses == [499]
    assert (metrics.accepted, metrics.answered) == (1, 1)


def test_label_sets() -> None:
    bundle = factories.tiny_bundle(task="multilabel")
    with client_of(bundle) as client:
        answer = client.post("/predict", json={"texts": TEXTS[:1]}).json()
    expected = Classifier.load(bundle).predict(TEXTS[0])
    assert answer["predictions"] == [json.loads(json.dumps(expected.to_json()))]


def test_scores_of_pairs() -> None:
    bundle = factories.tiny_bundle(task="regression")
    with client_of(bundle) as client:
        answer = client.post("/predict", json={"texts": ["a film"], "pairs": ["a movie"]}).json()
    expected = Classifier.load(bundle).predict("a film", "a movie")
    assert answer["predictions"] == [json.loads(json.dumps(expected.to_json()))]


def test_pairs() -> None:
    bundle = factories.tiny_bundle(task="pair")
    with client_of(bundle) as client:
        answer = client.post("/predict", json={"texts": ["a film"], "pairs": ["a movie"]})
        missing = client.post("/predict", json={"texts": ["a film"]})
        uneven = client.post("/predict", json={"texts": ["a film"], "pairs": ["a", "b"]})
    expected = Classifier.load(bundle).predict(("a film", "a movie"))
    assert not isinstance(expected, list)
    assert answer.json()["predictions"] == [json.loads(json.dumps(expected.to_json()))]
    assert (missing.status_code, uneven.status_code) == (400, 400)
    assert "1 texts and 2 pairs" in uneven.json()["error"]["detail"]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 5000, "not JSON"),
        (b'["a text"]', "a list, not an object"),
        (b"{}", "not a list"),
        (b'{"texts": []}', "not a list"),
        (b'{"texts": "abc"}', "not a list"),
        (b'{"texts": ["a", 1]}', "texts[1] is a int"),
        (b'{"texts": ["\\ud800"]}', "half a character"),
        (b'{"texts": ["a"], "pairs": ["b"]}', "'pairs' is unknown"),
    ],
)
def test_malformed_requests(client: TestClient, body: bytes, detail: str) -> None:
    answer = client.post("/predict", content=body)
    assert answer.status_code == 400
    assert detail in answer.json()["error"]["detail"]
    assert answer.json()["error"]["hint"].startswith('send {"texts"')


def test_limits(client: TestClient) -> None:
    assert client.post("/predict", json={"texts": ["a"] * 8}).status_code == 200
    assert client.post("/predict", json={"texts": ["a"] * 9}).status_code == 413
    assert client.post("/predict", content=b" " * 10_001).status_code == 413


def test_body_without_a_length_is_limited(client: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    assert client.post("/predict", content=endless()).status_code == 413


def test_other_methods_and_paths(client: TestClient) -> None:
    wrong_method = client.get("/predict")
    assert (wrong_method.status_code, wrong_method.headers["allow"]) == (405, "POST")
    assert wrong_method.json()["error"]["detail"] == "GET /predict"
    wrong_path = client.get("/nothing")
    assert wrong_path.status_code == 404
    assert wrong_path.json()["error"].keys() == {"message", "detail", "hint"}


def test_batches_of_the_graph_keep_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier.load(factories.tiny_bundle(), threads=1)
    sizes: list[int] = []
    run = classifier.run

    def counted(encoded: Mapping[str, np.ndarray]) -> np.ndarray:
        sizes.append(len(encoded["input_ids"]))
        return run(encoded)

    monkeypatch.setattr(classifier, "run", counted)
    limits = Limits(batch=3)
    engine = ClassifierEngine(classifier, limits, ServerMetrics())
    with TestClient(make_app(engine, classifier.manifest, limits, ServerMetrics())) as client:
        assert client.post("/predict", json={"texts": ["a film"] * 8}).status_code == 200
    assert sizes == [3, 3, 2]


def test_health(client: TestClient) -> None:
    assert client.get("/healthz").json()["status"] == "ok"


def test_metrics_count_texts_and_errors() -> None:
    with client_of(factories.tiny_bundle()) as client:
        client.post("/predict", json={"texts": TEXTS})
        client.post("/predict", content=b"{")
        families = {
            family.name: family
            for family in text_string_to_metric_families(client.get("/metrics").text)
        }
    status = {s.labels.get("status"): s.value for s in families["kdedge_requests"].samples}
    assert (status["200"], status["400"]) == (1, 1)
    assert value(families["kdedge_texts"], "kdedge_texts_total") == 4
    assert value(families["kdedge_texts_truncated"], "kdedge_texts_truncated_total") == 2
    assert value(families["kdedge_batch_texts"], "kdedge_batch_texts_sum") == 4
    assert value(families["kdedge_request_seconds"], "kdedge_request_seconds_count") == 1


def value(family: Any, name: str) -> float:
    return float(next(sample.value for sample in family.samples if sample.name == name))


class FailingEngine:
    """Raises the same error for every request."""

    is_cascade = False

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def predict(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        raise self.error

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestError(429, "the server is busy"), 429),
        (MachineError("the teacher's server gave no answer"), 502),
        (TimeoutError(), 504),
    ],
)
def test_errors_of_the_engine(error: Exception, status: int) -> None:
    manifest = Classifier.load(factories.tiny_bundle()).manifest
    app = make_app(FailingEngine(error), manifest, LIMITS, ServerMetrics())
    with TestClient(app) as client:
        answer = client.post("/predict", json={"texts": ["a"]})
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    assert (answer.headers.get("Retry-After") == "1") == (status == 429)


def test_the_address_of_the_teacher_is_logged_and_not_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    manifest = Classifier.load(factories.tiny_bundle()).manifest
    error = MachineError("the teacher gave no answer", "http://10.0.0.7/predict: refused")
    app = make_app(FailingEngine(error), manifest, LIMITS, ServerMetrics())
    with TestClient(app) as client:
        answer = client.post("/predict", json={"texts": ["a"]})
    assert answer.status_code == 502
    assert answer.json() == {"error": {"message": "the teacher gave no answer"}}
    assert "http://10.0.0.7/predict: refused" in caplog.text


def test_an_unexpected_error_is_json_and_counted() -> None:
    manifest = Classifier.load(factories.tiny_bundle()).manifest
    metrics = ServerMetrics()
    app = make_app(FailingEngine(ZeroDivisionError("a bug")), manifest, LIMITS, metrics)
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.post("/predict", json={"texts": ["a"]})
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "the server failed"
    assert (metrics.accepted, metrics.answered) == (1, 1)


def test_description_fits_the_answers(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    operation = document["paths"]["/predict"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    answer = client.post("/predict", json=schema["example"])
    assert answer.status_code == 200
    answered = operation["responses"]["200"]["content"]["application/json"]["schema"]
    described = answered["properties"]["predictions"]["items"]["properties"]
    prediction = answer.json()["predictions"][0]
    assert prediction.keys() <= described.keys()
    assert prediction["label"] in described["label"]["enum"]
    for path in document["paths"]:
        assert client.get(path).status_code in (200, 405)


def test_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "POST /predict" in page
    assert "http://" not in page
    assert "https://" not in page
