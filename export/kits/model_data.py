"""Writes what a kit needs besides the model: task and labels, and the golden texts, as C."""

from __future__ import annotations

from typing import Any

from kdedge.export.kits.c_text import c_array, c_macros, c_string

from kdedge.runtime.bundle import Bundle
from kdedge.runtime.manifest import Manifest
from kdedge.runtime.spec import KINDS

GOLDEN_TYPE = """
typedef struct {
    const char *text;
    size_t bytes;
    const char *pair; /* NULL without a second text */
    size_t pair_bytes;
    int tokens;
    const int32_t *ids;
    float logits[KD_OUTPUTS];
} kd_golden_text;
"""


def task_source(manifest: Manifest) -> str:
    """Return kind, labels, threshold and temperature of a bundle as C."""
    spec = manifest.spec
    labels = ", \\\n".join(c_string(label.encode()) for label in spec.labels)
    macros: dict[str, object] = {}
    for number, kind in enumerate(KINDS):
        macros[f"KD_{kind.upper()}"] = number
    macros |= {
        "KD_KIND": f"KD_{spec.kind.upper()}",
        "KD_PAIR": int(spec.pair),
        "KD_THRESHOLD": float(spec.threshold).hex(),
        "KD_TEMPERATURE": float(manifest.temperature).hex(),
        "KD_OUTPUTS": spec.outputs,
        "KD_LABELS": "\\\n" + labels.replace('"\n"', '" "'),
    }
    return "\n".join(
        [
            "/* The task. Written by kdedge. */\n",
            c_macros(macros),
            "static const char *const kd_labels[KD_OUTPUTS] = {KD_LABELS};\n",
        ]
    )


def golden_source(bundle: Bundle, precision: str) -> str:
    """Return the texts of golden.json, with tokens and logits, as C."""
    document = bundle.json("golden.json")
    rows = document["rows"]
    parts = [
        "/* Golden texts with their tokens and logits. Written by kdedge. */\n",
        c_macros(
            {"KD_GOLDEN": len(rows), "KD_TOLERANCE": _float(document["tolerance"][precision])}
        ),
        GOLDEN_TYPE,
    ]
    entries = []
    for number, row in enumerate(rows):
        parts.append(c_array("int32_t", f"kd_golden_ids_{number}", row["input_ids"]))
        entries.append(_entry(number, row, precision))
    body = ",\n".join(entries)
    parts.append(f"static const kd_golden_text kd_golden[KD_GOLDEN] = {{\n{body}\n}};\n")
    return "\n".join(parts)


def _entry(number: int, row: dict[str, Any], precision: str) -> str:
    logits = ", ".join(_float(value) for value in row["logits"][precision])
    pair = "NULL, 0"
    if "pair" in row:
        pair = _text(row["pair"])
    tokens = f"{len(row['input_ids'])}, kd_golden_ids_{number}"
    return f"{{{_text(row['text'])}, {pair}, {tokens}, {{{logits}}}}}"


def _text(text: str) -> str:
    content = text.encode()
    return f"{c_string(content)}, {len(content)}"


def _float(value: float) -> str:
    return float(value).hex() + "f"
