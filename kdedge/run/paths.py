"""The names of files and folders in a run, without the packages of the extra `train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdedge.errors import UsageError
from kdedge.run.stage import STAGE_FILE, read_stage

RECIPE_FILE = "recipe.toml"
METADATA_FILE = "run.json"
INPUTS_FOLDER = "inputs"


@dataclass(frozen=True)
class StudentDir:
    """The folders of one student; `folder` holds the others."""

    name: str
    folder: Path

    @property
    def student(self) -> Path:
        """The trained student."""
        return self.folder / "student"

    @property
    def baseline(self) -> Path:
        """The same student trained on the labels only."""
        return self.folder / "baseline"

    @property
    def layers(self) -> Path:
        """The student after its first stage of training, on the teacher's layers only."""
        return self.folder / "layers"

    @property
    def int8(self) -> Path:
        """The student after quantization-aware training."""
        return self.folder / "student-int8"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    @property
    def bench(self) -> Path:
        """The report on this student alone."""
        return self.folder / "bench"

    def require_trained(self) -> None:
        """Raise UsageError unless the student is trained."""
        if not (self.student / STAGE_FILE).is_file():
            raise UsageError(
                "this student has not been trained yet",
                str(self.student),
                "run `kdedge distill` with the run's recipe first",
            )

    def current_baseline(self) -> Path | None:
        """Return the baseline folder if its stage has the student's inputs, else None."""
        if not self.baseline.exists():
            return None
        student_inputs = read_stage(self.student).inputs | {"objective": None}
        baseline_inputs = read_stage(self.baseline).inputs | {"objective": None}
        return self.baseline if student_inputs == baseline_inputs else None
