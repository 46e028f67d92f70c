"""The model card: README.md of a bundle, with measured numbers alone."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from kdedge.runtime.bundle import Manifest

FLOAT = "float"
ORDER = (FLOAT, "fp16", "weight_only", "dynamic", "calibrated", "tuned", "portable")
"""All ways to a student's file, as tables name them."""


def rows_of(ways: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Name and figures of each way, as the manifest tells them, in the order of tables."""
    return [(name, ways["files"][name]) for name in ORDER if name in ways["files"]]


def times(faster: Sequence[float]) -> str:
    """Median and quartiles of a ratio."""
    return "{:.2f}x [{:.2f}-{:.2f}]".format(*faster)


def model_card(manifest: Manifest, sizes: Mapping[str, int]) -> str:
    """Markdown with the front matter of a Hugging Face repository."""
    spec, scores = manifest.spec, manifest.scores
    labels = ", ".join(_plain(label) for label in spec.labels[:20]) + (
        f" and {len(spec.labels) - 20} more" if len(spec.labels) > 20 else ""
    )
    lines = [
        "---",
        "library_name: kdedge",
        "pipeline_tag: text-classification",
        "tags: [onnx, knowledge-distillation, quantization]",
        "---",
        f"# {manifest.name}",
        "",
        f"A small text classifier distilled by kdedge {manifest.kdedge} from {manifest.teacher.get('model', 'a teacher')}.",
        f"It reads {'pairs of texts' if spec.pair else 'texts'} of up to {manifest.max_length} tokens and answers with {spec.kind}: {labels}.",
        "",
        "## Measured",
        f"{spec.metric} on the {scores.get('split_size', 0)} examples of the test split, each file measured itself:",
        "",
        "| | score | share of the teacher's | bytes |",
        "|---|---|---|---|",
        _row("teacher (torch)", scores.get("teacher"), scores, None),
        _row("student (torch)", scores.get("student"), scores, None),
        *(
            _row(f"{path} ({name})", scores.get(name), scores, sizes.get(name))
            for name, path in manifest.precisions.items()
        ),
        "",
        *_parity_lines(manifest),
        "",
        "## Use",
        "```python",
        "from kdedge.runtime import Classifier  # pip install kdedge-toolkit: no torch",
        "",
        'classifier = Classifier.load("path/to/this/folder")',
        'answer = classifier.predict("a text", "its second text")'
        if spec.pair
        else 'answer = classifier.predict("a text")',
        "print(answer.label, answer.score, answer.scores)",
        "```",
        "`kdedge verify FOLDER` checks every file's SHA-256 and replays golden.json on your machine.",
        "",
    ]
    return "\n".join(lines)


def _plain(label: str) -> str:
    """A label as text on one line: it comes from data, and the card is shown as HTML."""
    return html.escape(" ".join(label.split()))


def _row(name: str, value: Any, scores: Mapping[str, Any], size: int | None) -> str:
    if value is None:
        return f"| {name} | not measured | | |"
    teacher = scores.get("teacher")
    share = f"{100 * value / teacher:.1f} %" if teacher and teacher > 0 else ""
    return f"| {name} | {value:.4f} | {share} | {'' if size is None else f'{size:,}'} |"


def _parity_lines(manifest: Manifest) -> list[str]:
    parity, lines = manifest.parity, []
    if fp32 := parity.get("fp32"):
        difference = (
            f"largest logit difference {fp32['max_abs_logit']:.2g} over {fp32['texts']} texts"
        )
        beside = f" ({fp32['torch_fp32']:.2g} from torch in fp32)" if "torch_fp32" in fp32 else ""
        lines.append(
            f"The fp32 graph answers as torch does: {difference} from the model in double precision{beside}, all answers equal."
        )
    if words := parity.get("vocabulary"):
        told, pieces = words["test"], words["pieces"]
        lines.append(
            f"Its vocabulary was cut from {pieces['before']:,} pieces to {pieces['after']:,}: the student scored {told['before']:.4f} before "
            f"and {told['after']:.4f} after, with the same answer to {100 * told['agreement']:.2f} % of the texts."
        )
    ways = parity.get("ways", {})
    if ways.get("lost"):
        lines.append(f"It holds no int8 file, because that does not pay: {ways['lost']}.")
    elif int8 := parity.get("int8"):
        lines.append(
            f"The int8 file gives the same answer as the fp32 file on {100 * int8['agreement']:.2f} % of {int8['texts']} texts."
        )
        activations = (manifest.scheme or {}).get("activations")
        if activations == "static":
            lines += _static_lines(int8)
        elif activations == "float":
            lines.append(
                "Its weights alone are integers: they become fp32 when the file is opened, and everything is computed in fp32."
            )
        else:
            lines.append(
                f"Its activations are quantized over a whole batch, so a text's logits may move by up to {max(int8['batch_dependence'], int8['padding_dependence']):.2g} "
                "(measured) with the other texts of its batch, and a little with the number of threads."
            )
    if portable := parity.get("portable"):
        lines.append(
            f"The portable file holds the same integers in plain operators of ONNX: the same answer as the int8 file on {100 * portable['agreement']:.2f} % "
            f"of {portable['texts']} texts, largest logit difference {portable['max_abs_logit']:.2g}."
        )
    if ways:
        lines += ["", *_ways_lines(ways)]
    return lines


def _ways_lines(ways: Mapping[str, Any]) -> list[str]:
    """The student's files measured against each other at export."""
    rows = [
        f"| {name} | {way['metric']:.4f} | {100 * way['agreement']:.2f} % | {way['bytes']:,} | {way['p50_us']:,.0f} | {times(way['faster'])} |"
        for name, way in rows_of(ways)
    ]
    slow = (
        [f"int8 saves bytes alone where this was measured: {ways['slow']}."] if ways["slow"] else []
    )
    return [
        "| way | score | same answers as float | bytes | p50 µs, one text, one thread | faster [quartiles] |",
        "|---|---|---|---|---|---|",
        *rows,
        *slow,
    ]


def _static_lines(int8: Mapping[str, Any]) -> list[str]:
    kept = [
        *map(_plain, int8["tuning"]["float_layers"]),
        *(
            [f"{int8['float_attention_products']} of attention"]
            if int8["float_attention_products"]
            else []
        ),
    ]
    attention = (
        f", {int8['integer_attention_products']} of attention,"
        if int8["integer_attention_products"]
        else ""
    )
    return [
        f"Its {int8['integer_products']} products with weights{attention} run as integer kernels; in fp32 stay: {', '.join(kept) or 'none'}. "
        f"Its activations have fixed ranges: a text answers alike alone and among others of its length, as kdedge batches on a CPU (largest difference "
        f"measured: {int8['batch_dependence']:.2g}). Padded among longer ones, {int8['padding_moved']} of {int8['padding_texts']} texts moved, by up to "
        f"{int8['padding_dependence']:.2g} in logits, and {int8['padding_changes']} answers changed.",
        f"Of {int8['compared_with_torch']} texts, {int8['texts_with_a_rounding_tie']} hold an activation that torch and the file round apart, since it lies on a half; "
        f"logits then differ by up to {int8['max_abs_logit_torch']:.2g}, and {100 * int8['same_answers_torch']:.2f} % of the answers are the same.",
    ]
