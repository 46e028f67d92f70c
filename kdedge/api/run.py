"""A finished run as a Python object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdedge.distillation.scores import ModelScores, scores
from kdedge.distillation.seeds import distillation_gains, seed_stats
from kdedge.errors import KdedgeError
from kdedge.evaluation.statistics import PairedDifference, SeedStats
from kdedge.io.optional import import_pandas
from kdedge.io.show import html_table, text_table
from kdedge.recipe import Recipe
from kdedge.run.layout import RunDir

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Run:
    """A run folder: its recipe, its students and their scores.

    Attributes:
        folder: The folder `runs/<name>`.
        recipe: The recipe with all defaults.
        other_seeds: The runs of the other seeds, if there are several.

    Example:
        ```python
        run = kdedge.Run.open("runs/quickstart")
        run.students            # ["tinybert", "bilstm"]
        run.scores()[0].test    # the teacher's score on the test split
        ```
    """

    folder: Path
    recipe: Recipe
    other_seeds: tuple[Run, ...] = ()

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Open the run at or above a folder.

        Raises:
            UsageError: If there is no run at or above the folder.
        """
        run, _ = RunDir.open(Path(folder))
        return cls(run.folder, run.recipe)

    @classmethod
    def of(cls, runs: list[RunDir]) -> Run:
        """Return the first run; the others are the same with other seeds."""
        first, *others = [cls(run.folder.absolute(), run.recipe) for run in runs]
        return cls(first.folder, first.recipe, tuple(others))

    @property
    def run_dir(self) -> RunDir:
        """Every path of the run."""
        return RunDir(self.folder, self.recipe)

    @property
    def students(self) -> list[str]:
        """The names of the students."""
        return list(self.run_dir.students)

    def scores(self) -> list[ModelScores]:
        """Return the scores of the teacher, then of each student and its label-only baseline.

        Raises:
            UsageError: If the run is not finished.
        """
        return scores(self.run_dir)

    def seed_stats(self) -> dict[str, SeedStats]:
        """Return model -> mean, standard deviation and interval of its test scores over seeds."""
        return seed_stats(self._seed_runs())

    def gains(self) -> dict[str, PairedDifference]:
        """Return student -> its test scores minus those of its label-only baseline."""
        return distillation_gains(self._seed_runs())

    def to_pandas(self) -> pd.DataFrame:
        """Return the scores as a DataFrame with one row per model.

        Raises:
            MachineError: If pandas is not installed.
        """
        pandas: Any = import_pandas()
        table: pd.DataFrame = pandas.DataFrame([row.to_json() for row in self.scores()])
        return table

    def _seed_runs(self) -> list[RunDir]:
        return [self.run_dir, *(run.run_dir for run in self.other_seeds)]

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """Return header and rows of the table of scores."""
        models = self.scores()
        header = ["model", models[0].metric, "retention", "validation", "parameters"]
        rows = []
        for model in models:
            retention = "-" if model.retention is None else f"{100 * model.retention:.1f} %"
            numbers = [f"{model.test:.4f}", retention, f"{model.validation:.4f}"]
            rows.append([model.model, *numbers, f"{model.parameters:,}"])
        return header, rows

    @property
    def _title(self) -> str:
        """The folder, relative to the working directory if it is below it."""
        folder = self.folder
        if folder.is_relative_to(Path.cwd()):
            folder = folder.relative_to(Path.cwd())
        return str(folder)

    def __repr__(self) -> str:
        try:
            header, rows = self._cells()
        except KdedgeError:
            return f"Run({self._title!r}), not finished"
        return f"Run({self._title!r})\n{text_table(header, rows)}"

    def _repr_html_(self) -> str:
        """Return the table that notebooks show."""
        try:
            header, rows = self._cells()
        except KdedgeError:
            return html_table(f"{self._title}: not finished", [], [])
        return html_table(f"{self._title}: scores on the test split", header, rows)
