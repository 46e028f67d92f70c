"""Which teacher layer each student layer learns from."""

from __future__ import annotations

from dataclasses import dataclass

from kdedge.errors import UsageError


@dataclass(frozen=True)
class LayerMap:
    """Pairs (student layer, teacher layer), counted from 1; 0 is the embedding output.

    Attributes:
        student, teacher: Number of layers of each.
    """

    student: int
    teacher: int
    pairs: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        for s, t in self.pairs:
            if not (0 <= s <= self.student and 0 <= t <= self.teacher):
                raise UsageError(
                    "a layer map names a layer that does not exist",
                    f"the pair ({s}, {t})",
                    f"use student layers 0..{self.student} and teacher layers 0..{self.teacher}",
                )
            if s == 0 and t > 0:
                raise UsageError(
                    "the student's embeddings can learn only from the teacher's",
                    f"the pair ({s}, {t}); 0 is the embedding output",
                    "write [0, 0], or name a student layer from 1 on",
                )
        if len({s for s, _ in self.pairs}) < len(self.pairs):
            raise UsageError(
                "a student layer can learn from only one teacher layer",
                str(self),
                "name each student layer once",
            )

    @classmethod
    def uniform(cls, student: int, teacher: int) -> LayerMap:
        """Map m to m * teacher / student (TinyBERT, Jiao et al. 2020, section 3.1)."""
        if student < 1 or teacher % student:
            divisors = [str(n) for n in range(1, teacher + 1) if teacher % n == 0]
            raise UsageError(
                f"{student} student layers do not map uniformly onto {teacher} teacher layers",
                f"a {teacher}-layer teacher maps uniformly onto {', '.join(divisors)} layers",
                'use another number of layers, or layer_map = "last", "first", "skip" or pairs',
            )
        step = teacher // student
        return cls(student, teacher, tuple((m, m * step) for m in range(student + 1)))

    @classmethod
    def last(cls, student: int, teacher: int) -> LayerMap:
        """Map the student's layers to the teacher's last ones."""
        _require_enough_layers(student, teacher)
        pairs = [(0, 0)]
        for m in range(1, student + 1):
            pairs.append((m, teacher - student + m))
        return cls(student, teacher, tuple(pairs))

    @classmethod
    def first(cls, student: int, teacher: int) -> LayerMap:
        """Map the student's layers to the teacher's first ones."""
        _require_enough_layers(student, teacher)
        return cls(student, teacher, tuple((m, m) for m in range(student + 1)))

    @classmethod
    def skip(cls, student: int, teacher: int) -> LayerMap:
        """Map m to every k-th layer, k = teacher // student (PKD-Skip, Sun et al. 2019).

        The student's last layer has no pair: the logits teach it.
        """
        _require_enough_layers(student, teacher)
        step = teacher // student
        return cls(student, teacher, tuple((m, m * step) for m in range(student)))

    @classmethod
    def of(cls, student: int, teacher: int, pairs: list[tuple[int, int]]) -> LayerMap:
        """Map by explicit pairs."""
        return cls(student, teacher, tuple((s, t) for s, t in pairs))

    @classmethod
    def named(cls, name: str | list[tuple[int, int]], student: int, teacher: int) -> LayerMap:
        """Return the map that a recipe names: "uniform", "first", "last", "skip", or pairs."""
        if isinstance(name, list):
            return cls.of(student, teacher, name)
        by_name = {"uniform": cls.uniform, "first": cls.first, "last": cls.last, "skip": cls.skip}
        return by_name[name](student, teacher)

    def __str__(self) -> str:
        return " ".join(f"{s}<-{t}" for s, t in self.pairs)


def _require_enough_layers(student: int, teacher: int) -> None:
    if not 1 <= student <= teacher:
        raise UsageError(
            "each student layer needs its own teacher layer",
            f"{student} student and {teacher} teacher layers",
            "use at most as many layers as the teacher has",
        )
