"""Write a report: report.html, report.md, report.json and the picture of a learning curve."""

from __future__ import annotations

from pathlib import Path

from kdedge.benchmarks.markdown import CURVE_FILE, markdown
from kdedge.benchmarks.page import html_page
from kdedge.benchmarks.report import Report, one_line

from kdedge.errors import MachineError
from kdedge.io.atomic import write_atomic

PAGE_FILE = "report.html"


def write_report(report: Report, folder: Path) -> Path:
    """Write report.html, report.md, report.json and a learning curve.

    Nothing is written before all of it is drawn, which takes seconds. Each file is written
    completely or not at all. The page is the last one: if it exists, the report is whole. curve.svg
    is written if the run has a curve.

    Returns:
        The path of report.json.

    Raises:
        MachineError: If the folder cannot be created.
    """
    contents = {"report.json": one_line(report) + "\n"}
    if "curve" in report.learned_from:
        contents[CURVE_FILE] = _curve_picture(report)
    contents["report.md"] = markdown(report)
    contents[PAGE_FILE] = html_page(report)  # the last one
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            "the folder of the report cannot be created",
            f"{folder}: {error.strerror}",
            "name another folder with --out",
        ) from error
    (folder / PAGE_FILE).unlink(missing_ok=True)
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return folder / "report.json"


def _curve_picture(report: Report) -> str:
    from kdedge.distillation.learning_curve import LearningCurve
    from kdedge.distillation.learning_curve_plot import plot_learning_curve

    curve = LearningCurve.from_json(report.learned_from["curve"])
    return plot_learning_curve(curve, report.task["name"])
