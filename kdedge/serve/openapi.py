"""The OpenAPI document of a server, and a page that shows it and loads no other file."""

from __future__ import annotations

import html
import json
from pathlib import Path
from string import Template
from typing import Any, get_args

from kdedge import __version__
from kdedge.cascade.cascade import Reason
from kdedge.runtime.manifest import Manifest
from kdedge.serve.limits import Limits

TEMPLATE = Path(__file__).with_name("docs.html.template")

ERRORS = {
    "400": "The request is malformed.",
    "408": "The request took too long to arrive.",
    "413": "The request is too large, or has too many texts.",
    "429": "Too many texts wait. Send the request again.",
    "500": "The server failed.",
    "502": "The teacher gave no answer.",
    "504": "The answer took too long.",
}


def openapi_document(
    manifest: Manifest, limits: Limits, *, cascade: bool = False
) -> dict[str, Any]:
    """Return an OpenAPI 3.1 document of the server for one bundle, or for a cascade."""
    responses: dict[str, Any] = {
        "200": {
            "description": "One prediction for each text, in their order.",
            "content": {"application/json": {"schema": _answer_schema(manifest, cascade)}},
        }
    }
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for status, description in ERRORS.items():
        responses[status] = {"description": description, "content": error}
    predict = {
        "summary": "Predict the labels of texts.",
        "operationId": "predict",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _request_schema(manifest, limits)}},
        },
        "responses": responses,
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": manifest.name, "version": __version__},
        "paths": {
            "/predict": {"post": predict},
            "/healthz": {"get": _plain("Say that the server answers.", "application/json")},
            "/metrics": {"get": _plain("Metrics in Prometheus' text format.", "text/plain")},
        },
        "components": {"schemas": {"Error": _error_schema()}},
    }


def _request_schema(manifest: Manifest, limits: Limits) -> dict[str, Any]:
    texts = {
        "type": "array",
        "items": {"type": "string"},
        "minItems": 1,
        "maxItems": limits.texts,
    }
    names = ["texts", "pairs"] if manifest.spec.pair else ["texts"]
    example = {name: ["a text"] for name in names}
    return {
        "type": "object",
        "properties": dict.fromkeys(names, texts),
        "required": names,
        "additionalProperties": False,
        "example": example,
    }


def _answer_schema(manifest: Manifest, cascade: bool) -> dict[str, Any]:
    answer = _prediction_schema(manifest)
    if cascade:
        answer = _cascade_schema(answer)
    return {
        "type": "object",
        "properties": {
            "predictions": {"type": "array", "items": answer},
            "model": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "digest": {"type": "string"}},
            },
        },
        "required": ["predictions"],
    }


def _prediction_schema(manifest: Manifest) -> dict[str, Any]:
    label: dict[str, Any] = {"type": "string", "enum": list(manifest.spec.labels)}
    if manifest.spec.kind == "multilabel":
        label = {"type": "array", "items": label}
    return {
        "type": "object",
        "properties": {
            "label": label,
            "score": {"type": "number"},
            "scores": {"type": "object", "additionalProperties": {"type": "number"}},
            "truncated": {"type": "boolean"},
        },
        "required": ["label", "score", "scores"],
    }


def _cascade_schema(student: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a cascade's answer; `student` is that of the student's own."""
    properties = {
        "label": student["properties"]["label"],
        "source": {"type": "string", "enum": ["student", "teacher"]},
        "reason": {"type": "string", "enum": list(get_args(Reason))},
        "student": student,
        "audited": {"type": "boolean"},
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _error_schema() -> dict[str, Any]:
    texts = {name: {"type": "string"} for name in ("message", "detail", "hint")}
    error = {"type": "object", "properties": texts, "required": ["message"]}
    return {"type": "object", "properties": {"error": error}, "required": ["error"]}


def _plain(summary: str, media_type: str) -> dict[str, Any]:
    content: dict[str, Any] = {media_type: {"schema": {}}}
    return {"summary": summary, "responses": {"200": {"description": "OK", "content": content}}}


def docs_page(document: dict[str, Any]) -> str:
    """Return a page that lists the paths of an OpenAPI document and tries /predict."""
    title = html.escape(document["info"]["title"])
    schema = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    example = html.escape(json.dumps(schema["schema"]["example"]))
    rows = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            summary = html.escape(operation["summary"])
            rows.append(f"<dt><code>{method.upper()} {path}</code></dt><dd>{summary}</dd>")
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(title=title, rows="\n".join(rows), example=example)
