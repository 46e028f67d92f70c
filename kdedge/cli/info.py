"""`kdedge info BUNDLE`: print the task, scores and files of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from kdedge.cli.console import fold, make_table, print_json, print_line, results, size_text
from kdedge.cli.options import json_option
from kdedge.wording import listed

if TYPE_CHECKING:
    from kdedge.runtime.bundle import Bundle
    from kdedge.runtime.evaluation import EvaluationTexts
    from kdedge.runtime.manifest import Manifest

SHOWN_LABELS = 12


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option
def info(bundle: Path, as_json: bool) -> None:
    """Describe BUNDLE: task, labels, student, teacher, scores, and the size of every file.

    All files are checked against their hashes first. The digest covers the whole manifest, which
    holds the hashes of all other files: equal digests are equal bundles.

    \b
    Example: kdedge info runs/quickstart/tinybert/bundle
    """
    from kdedge.runtime.bundle import Bundle
    from kdedge.runtime.evaluation import read_evaluation

    opened = Bundle.open(bundle)
    opened.verify_files()
    digest = opened.manifest.digest()
    evaluation = read_evaluation(opened)
    if as_json:
        print_json(_document(opened, digest, evaluation))
        return
    facts = _facts(opened.manifest)
    if evaluation is not None:
        facts["texts"] = _evaluation_sentence(evaluation)
    for name, value in facts.items():
        click.echo(fold(f"{name + ':':<12}{value}", indent=12))
    results().print(_files_table(opened))
    print_line(f"digest: {digest}")


def _facts(manifest: Manifest) -> dict[str, str]:
    spec = manifest.spec
    texts = "pairs of texts" if spec.pair else "single texts"
    facts = {
        "bundle": manifest.name,
        "task": f"{spec.kind} of {texts}, up to {manifest.max_length} tokens",
        "labels": _labels(spec.labels),
        "teacher": str(manifest.teacher.get("model", "unknown")),
        "made by": f"kdedge {manifest.kdedge}",
    }
    scores = manifest.scores
    metric = str(scores.get("metric", spec.metric))
    for model in ("teacher", "student"):
        if scores.get(model) is not None:
            facts[model] = facts.get(model, "") + f" {metric} {float(scores[model]):.4f}"
    for name in manifest.precisions:
        if scores.get("student") is not None and scores.get(name) is not None:
            facts["student"] += f", {name} file {float(scores[name]):.4f}"
    if scores.get("split_size"):
        facts["scores"] = f"{metric} on {scores['split_size']:,} test texts"
    if manifest.scheme:
        facts["int8"] = ", ".join(f"{key} {value}" for key, value in manifest.scheme.items())
    if manifest.clean:
        facts["cleans"] = f"every text first: {', '.join(manifest.clean)}"
    return {name: value.strip() for name, value in facts.items()}


def _evaluation_sentence(evaluation: EvaluationTexts) -> str:
    logits = " and the teacher's logits" if evaluation.teacher_logits is not None else ""
    count = f"{len(evaluation.texts):,} evaluation texts"
    return f"{count}, word for word, with labels{logits}; `kdedge bench` uses them"


def _labels(labels: tuple[str, ...]) -> str:
    return f"{len(labels)}: {listed(labels, SHOWN_LABELS)}"


def _files_table(bundle: Bundle) -> Table:
    precisions = {path: name for name, path in bundle.manifest.precisions.items()}
    table = make_table(
        "", ["file", "precision", "size", "sha256"], left=("file", "precision", "sha256")
    )
    for path, entry in sorted(bundle.manifest.files.items()):
        size = size_text(entry["bytes"])
        table.add_row(path, precisions.get(path, ""), size, entry["sha256"][:12])
    table.add_row("all files", "", size_text(bundle.manifest.size()), "")
    return table


def _document(bundle: Bundle, digest: str, evaluation: EvaluationTexts | None) -> dict[str, Any]:
    document = {"bundle": str(bundle.folder), "digest": digest, **bundle.manifest.to_json()}
    if evaluation is not None:
        document["evaluation"] = {
            "texts": len(evaluation.texts),
            "teacher_logits": evaluation.teacher_logits is not None,
        }
    return document
