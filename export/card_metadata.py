"""The front matter of a model card, which model hubs read: tags, and scores as a model-index."""

from __future__ import annotations

from collections.abc import Iterator

from huggingface_hub import EvalResult, ModelCardData

from kdedge.printable import printable
from kdedge.runtime.manifest import Manifest

TAGS = ["onnx", "knowledge-distillation", "quantization"]

HUB_METRICS = {
    "accuracy": "accuracy",
    "f1": "f1",
    "macro_f1": "f1",
    "micro_f1": "f1",
    "matthews": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
}
"""Metric of a task -> its name in the hub's library `evaluate`."""


def card_metadata(manifest: Manifest) -> str:
    """Return the front matter as YAML, without its dashes.

    The scores of the files on the test split become a model-index. A bundle whose scores only
    compare files with the model's own predictions has none.
    """
    data = ModelCardData(
        library_name="kdedge",
        pipeline_tag="text-classification",
        tags=TAGS,
        model_name=printable(manifest.name),
        eval_results=list(_results(manifest)) or None,
    )
    return str(data.to_yaml())


def _results(manifest: Manifest) -> Iterator[EvalResult]:
    metric = manifest.scores["metric"]
    if metric not in HUB_METRICS:
        return
    task = printable(manifest.spec.name)
    for name in manifest.precisions:
        yield EvalResult(
            task_type="text-classification",
            dataset_type=task,
            dataset_name=task,
            dataset_split="test",
            metric_type=HUB_METRICS[metric],
            metric_value=round(manifest.scores[name], 4),
            metric_name=f"{metric}, {name}",
        )
