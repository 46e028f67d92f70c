"""The model card: README.md of a bundle, with measured figures only."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template

from kdedge.export.card_metadata import card_metadata
from kdedge.export.figures import (
    Int8Figures,
    ParityFigures,
    TemperatureFigures,
    VariantDecision,
    VocabularyFigures,
    times,
)
from kdedge.export.int8_parity import IntegerCheck
from kdedge.export.parity import BatchDependence, ParityReport

from kdedge.printable import printable
from kdedge.runtime.manifest import Manifest
from kdedge.wording import listed

TEMPLATE = Path(__file__).with_name("model_card.md.template")
SHOWN_LABELS = 20

OWN_PREDICTIONS = "own predictions"
"""The metric in a manifest whose scores compare files with the model's own predictions."""


GOLDEN = {
    "neutral": "golden.json holds texts that come with kdedge, none of the task.",
    "test": "golden.json holds texts of the test split, word for word.",
}
"""Where golden texts come from -> the sentence of the card."""

WITH_EVALUATION = (
    "\nevaluation.json holds all {size:,} texts of the test split, word for word, with their "
    "labels. Whoever has this folder can read them. `kdedge bench FOLDER` measures on them."
)
"""The sentence of the card of a bundle with evaluation texts."""


def model_card(
    manifest: Manifest,
    figures: ParityFigures,
    sizes: Mapping[str, int],
    golden_from: str = "neutral",
    *,
    with_eval: bool = False,
) -> str:
    """Return Markdown with the front matter of a Hugging Face repository.

    `sizes` are the bytes of each file. `with_eval` says whether evaluation texts are packed.
    """
    spec = manifest.spec
    evaluation = ""
    if with_eval:
        evaluation = WITH_EVALUATION.format(size=manifest.scores["split_size"])
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(
        metadata=card_metadata(manifest),
        name=printable(manifest.name),
        version=manifest.kdedge,
        origin=_origin(manifest),
        inputs="pairs of texts" if spec.pair else "texts",
        max_length=manifest.max_length,
        kind=spec.kind,
        labels=_labels(spec.labels),
        cleaning=_cleaning(manifest),
        measured=_measured(manifest),
        scores="\n".join(_score_rows(manifest, sizes)),
        checks="\n".join(_check_lines(figures)),
        golden=GOLDEN[golden_from] + evaluation,
        reference="teacher" if manifest.teacher else "model",
        example='"a text", "its second text"' if spec.pair else '"a text"',
    )


def _origin(manifest: Manifest) -> str:
    """Return where the classifier comes from; a model that was only exported has no teacher."""
    if not manifest.teacher:
        return "exported from a fine-tuned model"
    return f"distilled from {manifest.teacher.get('model', 'a teacher')}"


def _cleaning(manifest: Manifest) -> str:
    """Say that texts are cleaned first: other libraries that read the files do not do it."""
    if not manifest.clean:
        return ""
    return (
        f"\nkdedge cleans every text first: {', '.join(manifest.clean)}. A program that reads the "
        "ONNX file without kdedge must do the same."
    )


def _measured(manifest: Manifest) -> str:
    """Describe the scores, and the texts on which they were measured."""
    metric, size = manifest.scores["metric"], manifest.scores["split_size"]
    if metric == OWN_PREDICTIONS:
        return f"Share of the model's own predictions on {size} texts without labels"
    return f"{metric} on the {size} examples of the test split"


def _labels(labels: tuple[str, ...]) -> str:
    return listed([_plain(label) for label in labels], SHOWN_LABELS)


def _plain(label: str) -> str:
    """Return a label as text on one line: it comes from data, and the card is shown as HTML."""
    return html.escape(printable(" ".join(label.split())))


def _score_rows(manifest: Manifest, sizes: Mapping[str, int]) -> Iterator[str]:
    scores = manifest.scores
    if manifest.teacher:
        yield _score_row("teacher (torch)", scores["teacher"], scores["teacher"], "")
        yield _score_row("student (torch)", scores["student"], scores["teacher"], "")
    else:
        yield _score_row("model (torch)", scores["teacher"], scores["teacher"], "")
    for name, path in manifest.precisions.items():
        yield _score_row(f"{path} ({name})", scores[name], scores["teacher"], f"{sizes[name]:,}")


def _score_row(name: str, score: float, teacher: float, size: str) -> str:
    share = f"{100 * score / teacher:.1f} %" if teacher > 0 else ""
    return f"| {name} | {score:.4f} | {share} | {size} |"


def _check_lines(figures: ParityFigures) -> Iterator[str]:
    if figures.fp32 is not None:
        yield _fp32_sentence(figures.fp32)
    if figures.vocabulary is not None:
        yield _vocabulary_sentence(figures.vocabulary)
    variants = figures.variants
    if variants is not None and variants.loss_reason:
        yield f"The bundle contains no int8 file, which is not worth it: {variants.loss_reason}."
    elif figures.int8 is not None:
        yield from _int8_sentences(figures.int8)
    if figures.fp16 is not None:
        yield _half_sentence(figures.fp16)
    if figures.portable is not None:
        yield _portable_sentence(figures.portable)
    if figures.calibration is not None:
        yield _calibration_sentence(figures.calibration)
    if variants is not None:
        yield from _variants_table(variants)


def _fp32_sentence(report: ParityReport) -> str:
    return (
        f"The fp32 graph gives the same predictions as torch: largest logit difference "
        f"{report.max_abs_logit:.2g} over {report.texts} texts from the model in double precision "
        f"({report.torch_fp32:.2g} from torch in fp32)."
    )


def _vocabulary_sentence(figures: VocabularyFigures) -> str:
    pieces, test = figures.pieces, figures.test
    return (
        f"Its vocabulary was reduced from {pieces['before']:,} pieces to {pieces['after']:,}: the "
        f"student scored {test.before:.4f} before and {test.after:.4f} after, with equal "
        f"predictions for {100 * test.agreement:.2f} % of the texts."
    )


def _int8_sentences(figures: Int8Figures) -> Iterator[str]:
    comparison = figures.comparison
    yield (
        f"The int8 file gives the same prediction as the fp32 file on "
        f"{100 * comparison.agreement:.2f} % of {comparison.texts} texts."
    )
    if figures.integers is None or figures.tuning is None:
        yield _dynamic_sentence(figures.batches)
        return
    yield _kernels_sentence(figures.integers)
    yield _fixed_ranges_sentence(figures.batches)
    yield _rounding_sentence(figures.integers)


def _dynamic_sentence(batches: BatchDependence) -> str:
    largest = max(batches.batch_dependence, batches.padding_dependence)
    return (
        f"Its activations are quantized over a whole batch, so the logits of a text may move by "
        f"up to {largest:.2g} (measured) with the other texts of its batch, and a little with the "
        "number of threads."
    )


def _kernels_sentence(integers: IntegerCheck) -> str:
    coverage = integers.coverage
    in_float = coverage.float_attention_products
    return (
        f"Its {coverage.integer_products} products with weights run as integer kernels. "
        f"In fp32: {f'{in_float} products of attention' if in_float else 'none'}."
    )


def _fixed_ranges_sentence(batches: BatchDependence) -> str:
    return (
        "Its activations have fixed ranges: a text has the same result alone and among texts of "
        "its length, as kdedge batches on a CPU (largest difference measured: "
        f"{batches.batch_dependence:.2g}). Padded among longer texts, {batches.padding_moved} of "
        f"{batches.padding_texts} texts moved, by up to {batches.padding_dependence:.2g} in "
        f"logits, and {batches.padding_changes} predictions changed."
    )


def _rounding_sentence(integers: IntegerCheck) -> str:
    replay = integers.replay
    return (
        f"Of {replay.unguided.texts} texts, {replay.ties} have an activation halfway between two "
        "integers, which torch and the file round differently. Logits then differ by up to "
        f"{replay.unguided.max_abs_logit:.2g}, and {100 * replay.unguided.agreement:.2f} % of the "
        "predictions are equal."
    )


def _half_sentence(report: ParityReport) -> str:
    return (
        "The fp16 file is for GPUs: the same prediction as the fp32 file on "
        f"{100 * report.agreement:.2f} % of {report.texts} texts, largest logit difference "
        f"{report.max_abs_logit:.2g}."
    )


def _portable_sentence(report: ParityReport) -> str:
    return (
        "The portable file contains the same integers in standard ONNX operators: the same "
        f"prediction as the int8 file on {100 * report.agreement:.2f} % of {report.texts} texts, "
        f"largest logit difference {report.max_abs_logit:.2g}."
    )


def _calibration_sentence(figures: TemperatureFigures) -> str:
    return (
        f"Its probabilities are calibrated on the validation split with the temperature "
        f"{figures.temperature:g}: the expected calibration error is "
        f"{100 * figures.error_before:.1f} % without and {100 * figures.error_after:.1f} % with it."
    )


def _variants_table(variants: VariantDecision) -> Iterator[str]:
    yield ""
    yield (
        "| variant | score | same predictions as float | bytes | p50 µs, one text, one thread "
        "| speedup [quartiles] |"
    )
    yield "|---|---|---|---|---|---|"
    for name, variant in variants.rows():
        yield (
            f"| {name} | {variant.metric:.4f} | {100 * variant.agreement:.2f} % "
            f"| {variant.bytes:,} | {variant.p50_us:,.0f} | {times(variant.speedup)} |"
        )
    if variants.slow_reason:
        yield f"The int8 file only saved bytes on this machine: {variants.slow_reason}."
