"""Write a first recipe with comments, for people to change."""

from __future__ import annotations

import re
from dataclasses import dataclass

import tomli_w

from kdedge.runtime.spec import Kind

NAME_LENGTH = 40

BATCH_SIZE = 32
"""Examples per step of a recipe's [fit] tables, by default."""

TEACHER_STEPS = 200
STUDENT_STEPS = 320
MOST_EPOCHS = 20.0


@dataclass(frozen=True)
class Draft:
    """The facts that a first recipe is written from.

    Attributes:
        name: Name of the run.
        data: Keys of the table data, with their values.
        comments: Key of the table data -> a comment at the end of its line.
        kind: Kind of the task.
        teacher: Folder, package:NAME/FOLDER or hub id of the teacher's encoder.
        max_length: Tokens per text.
        examples: Number of labelled examples to train on; fewer examples get more epochs.
    """

    name: str
    data: dict[str, str | float]
    comments: dict[str, str]
    kind: Kind
    teacher: str
    max_length: int
    examples: int

    def to_toml(self) -> str:
        """Return the text of the recipe."""
        lines = [
            "# A first recipe. `kdedge keys` lists every key with its default.",
            _line("name", self.name),
            "",
            "[task]",
            _line("kind", self.kind, "classification, multilabel or regression"),
            "",
            "[data]",
        ]
        for key, value in self.data.items():
            lines.append(_line(key, value, self.comments.get(key, "")))
        lines += [
            "",
            "[teacher]",
            _line("model", self.teacher, "an encoder or a classifier: folder or hub id"),
            _line("max_length", self.max_length, "tokens per text; longer texts are cut"),
            "",
            "[teacher.fit]",
            _line("epochs", self._epochs(TEACHER_STEPS, least=2)),
            _line("learning_rate", 1e-4),
            "",
            "# Two students, which learn from the same teacher. Remove one, or add more.",
            *_student("tinybert", self.max_length, ["layers = 2", "hidden = 384", "heads = 12"]),
            "intermediate = 1536",
            "",
            "[student.fit]",
            _line("epochs", self._epochs(STUDENT_STEPS, least=4)),
            _line("learning_rate", 2e-4),
            "",
            *_student("bilstm", self.max_length, self._bilstm_lines()),
            "",
            "[student.fit]",
            _line("epochs", self._epochs(STUDENT_STEPS, least=6)),
            _line("learning_rate", 2e-3),
        ]
        return "\n".join(lines) + "\n"

    def _bilstm_lines(self) -> list[str]:
        if "pair" not in self.data:
            return []
        return [_line("cross_attention", value=True, comment="compare two texts token by token")]

    def _epochs(self, steps: int, *, least: float) -> float:
        """Return the epochs that give about this many steps, between `least` and `MOST_EPOCHS`."""
        epochs = round(steps * BATCH_SIZE / max(self.examples, 1))
        return float(min(max(epochs, least), MOST_EPOCHS))


def _student(kind: str, max_length: int, shape: list[str]) -> list[str]:
    return ["[[student]]", _line("kind", kind), _line("max_length", max_length), *shape]


def _line(key: str, value: object, comment: str = "") -> str:
    line = tomli_w.dumps({key: value}).strip()
    return f"{line}  # {comment}" if comment else line


def run_name(text: str) -> str:
    """Turn any text, such as a file's name, into the name of a run."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")
    return name[:NAME_LENGTH] or "my-run"
