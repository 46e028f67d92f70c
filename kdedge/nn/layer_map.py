"""Which teacher layer each student layer learns from."""

from __future__ import annotations

from dataclasses import dataclass

from kdedge.errors import UsageError


@dataclass(frozen=True)
class LayerMap:
    """Pairs (student layer, teacher layer), counted from 1; 0 is the embedding output."""

    student: int
    teacher: int
    pairs: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        for s, t in self.pairs:
            if not (0 <= s <= self.student and 0 <= t <= self.teacher):
                raise UsageError(
                    f"a layer map of a {self.student}-layer student and a {self.teacher}-layer teacher stays within them",
                    f"the pair ({s}, {t})",
                    f"use student layers 0..{self.student} and teacher layers 0..{self.teacher}",
                )
        if len({s for s, _ in self.pairs}) < len(self.pairs):
            raise UsageError(
                "a student layer learns from one teacher layer",
                str(self),
                "name each student layer once",
            )

    @classmethod
    def uniform(cls, student: int, teacher: int) -> LayerMap:
        """g(m) = m * teacher / student (TinyBERT, Jiao et al. 2020, section 3.1)."""
        if student < 1 or teacher % student:
            fitting = ", ".join(str(n) for n in range(1, teacher + 1) if teacher % n == 0)
            raise UsageError(
                f"a {teacher}-layer teacher maps uniformly onto {fitting} layers",
                f"a student of {student} layers",
                'use another number of layers, or layer_map = "last", "first", "skip", "learned" or pairs',
            )
        return cls(student, teacher, tuple((m, m * teacher // student) for m in range(student + 1)))

    @classmethod
    def last(cls, student: int, teacher: int) -> LayerMap:
        """The student's layers match the teacher's last ones."""
        _fits(student, teacher)
        return cls(
            student, teacher, ((0, 0), *((m, teacher - student + m) for m in range(1, student + 1)))
        )

    @classmethod
    def first(cls, student: int, teacher: int) -> LayerMap:
        """The student's layers match the teacher's first ones."""
        _fits(student, teacher)
        return cls(student, teacher, tuple((m, m) for m in range(student + 1)))

    @classmethod
    def skip(cls, student: int, teacher: int) -> LayerMap:
        """Every k-th teacher layer, k = teacher // student, for all but the student's last layer, which the logits teach (PKD-Skip, Sun et al. 2019)."""
        _fits(student, teacher)
        return cls(student, teacher, tuple((m, m * (teacher // student)) for m in range(student)))

    @classmethod
    def of(cls, student: int, teacher: int, pairs: list[tuple[int, int]]) -> LayerMap:
        """The pairs as given."""
        return cls(student, teacher, tuple((s, t) for s, t in pairs))

    @classmethod
    def named(cls, name: str | list[tuple[int, int]], student: int, teacher: int) -> LayerMap:
        """The map that a recipe means: `uniform`, `first`, `last`, `skip`, or pairs."""
        if isinstance(name, list):
            return cls.of(student, teacher, name)
        return {"uniform": cls.uniform, "first": cls.first, "last": cls.last, "skip": cls.skip}[
            name
        ](student, teacher)

    def __str__(self) -> str:
        return " ".join(f"{s}<-{t}" for s, t in self.pairs)


def _fits(student: int, teacher: int) -> None:
    if not 1 <= student <= teacher:
        raise UsageError(
            "each student layer needs a teacher layer of its own",
            f"{student} student and {teacher} teacher layers",
            "use at most as many layers as the teacher has",
        )
