"""`kdedge.bench`: measure runs or bundles. Bundles are measured without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from kdedge.api.examples import examples_of_task, read_examples
from kdedge.api.progress import progress_of
from kdedge.benchmarks.bench import bench_bundle, bench_run, bundle_settings, run_settings
from kdedge.benchmarks.examples import Examples, packed_examples
from kdedge.benchmarks.examples import read_examples as read_example_file
from kdedge.benchmarks.options import Options
from kdedge.benchmarks.output_folder import (
    check_outside,
    check_replaceable,
    check_writable,
    report_folder,
)
from kdedge.benchmarks.render import write_report
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.scenarios.names import scenario_names
from kdedge.benchmarks.sources import Plan, plan
from kdedge.errors import UsageError
from kdedge.run.progress import Progress
from kdedge.runtime.bundle import Bundle
from kdedge.runtime.bundle_source import bundle_folder
from kdedge.wording import nearest_or_known

if TYPE_CHECKING:
    from kdedge.api.run import Run


class BenchSettings(TypedDict, total=False):
    """How `kdedge.bench` measures.

    Attributes:
        providers: Execution providers of ONNX Runtime; default: ("cpu",).
        threads: CPU threads for every model; default: 1.
        seconds: Total time for latency measurements; default: 15.
        repeats: Single texts to time per model, instead of seconds.
        batch: Batch size for throughput; default: 32.
        teacher: Whether to time the teacher; default: True.
        target: Share of the teacher's score that counts as retained; default: 0.99.
        seed: Seeds the choice of texts and the bootstrap; default: 0.
        show_texts: Whether the report shows the texts on which student and teacher differ most;
            default: False.
        scenarios: What to measure too, such as ("load", "cold") or ("all",); default: ("single",).
        rates: Texts per second for the scenario load; default: shares of each subject's capacity.
    """

    providers: tuple[str, ...]
    threads: int
    seconds: float
    repeats: int | None
    batch: int
    teacher: bool
    target: float
    seed: int
    show_texts: bool
    scenarios: tuple[str, ...]
    rates: tuple[float, ...]


def bench(
    source: Run | Bundle | str | Path | Sequence[Run | Bundle | str | Path],
    data: Any = None,
    *,
    out: str | Path | None = None,
    progress: bool | Progress = True,
    **settings: Unpack[BenchSettings],
) -> Report:
    """Measure retention, latency, throughput, memory and size.

    A run, or a bundle in its run, is compared with its teacher and with baselines. Any other
    bundle is measured alone.

    Args:
        source: A run, a bundle, a folder, zip or hub id of one, or a list of bundles.
        data: Texts to bench bundles on: a csv, tsv, jsonl, parquet or txt file, `(texts, labels)`,
            texts alone, a `datasets.Dataset` or a DataFrame. Default: a run's test split, or a
            bundle's evaluation texts, or else its golden texts.
        out: Folder for report.html, report.md and report.json. Default: bench/ in the run, with
            unusual settings in its name; a bundle without a run writes no files.
        progress: Whether to show progress, or an object that receives it.
        **settings: See `BenchSettings`.

    Returns:
        The report; `report.to_pandas()` is its table.

    Raises:
        UsageError: If a source, a setting or the form of the data is wrong, or if the folder holds
            a report that was made with other settings.
        DataError: If texts or labels cannot be used.
        IntegrityError: If a file of a bundle or a run was changed.
        MachineError: If this machine lacks something, such as an execution provider.

    Example:
        ```python
        report = kdedge.bench(run, seconds=5)
        report = kdedge.bench("my-bundle", data=(texts, labels), threads=2)
        report.to_pandas()[["subject", "precision", "p50_us", "retention"]]
        ```
    """
    options = _options(settings)
    sources = source if isinstance(source, list | tuple) else [source]
    if not sources:
        raise UsageError("nothing to bench", "an empty list", "name a run or a bundle")
    with ExitStack() as stack:
        folders = [_folder(item, stack) for item in sources]
        planned = plan(folders, alone=data is not None)
        folder = Path(out) if out else None
        if folder is not None:
            check_outside(folder)
            check_writable(folder)
        if planned.run is not None:
            folder = folder or report_folder(planned.out, options)
            report = _bench_run(planned, options, folder, progress_of(progress))
        else:
            bundles = [Bundle.open(bundle) for bundle in planned.bundles]
            examples = _examples(data, bundles[0]) or packed_examples(bundles[0])
            if folder is not None:
                check_replaceable(folder, bundle_settings(bundles, options, examples))
            report = bench_bundle(
                planned.bundles,
                options=options,
                examples=examples,
                progress=progress_of(progress),
            )
        if folder is not None:
            write_report(report, folder)
    return report


def _options(settings: Mapping[str, Any]) -> Options:
    """Return the settings as options. Raises UsageError that names an unknown or wrong one."""
    names = [field.name for field in fields(Options)]
    for name in settings:
        if name not in names:
            hint = nearest_or_known(name, names)
            raise UsageError("kdedge.bench has no such setting", name, hint)
    if "scenarios" in settings:
        settings = {**settings, "scenarios": scenario_names(settings["scenarios"])}
    return Options(**settings)


def _folder(source: Any, stack: ExitStack) -> Path:
    """Return the folder of a source; a zip or hub id is unpacked until the stack is closed."""
    folder = getattr(source, "folder", source)
    if isinstance(folder, str | Path) and Path(folder).is_dir():
        return Path(folder)
    if not isinstance(folder, str | Path):
        raise UsageError(
            "kdedge.bench measures runs and bundles",
            f"a {type(source).__name__}",
            "name a folder, or give what kdedge.distill or kdedge.export_bundle returned",
        )
    return stack.enter_context(bundle_folder(folder))


def _bench_run(planned: Plan, options: Options, folder: Path, progress: Progress) -> Report:
    """Bench a run whose report goes into a folder."""
    from kdedge.api.process import restored_process

    assert planned.run is not None
    with restored_process(), planned.run.locked():
        check_replaceable(folder, run_settings(planned.run, planned.students, options))
        return bench_run(planned.run, planned.students, options=options, progress=progress)


def _examples(data: Any, bundle: Bundle) -> Examples | None:
    """Return the texts to bench a bundle on; None for its golden texts."""
    if data is None:
        return None
    spec = bundle.manifest.spec
    if isinstance(data, str | Path):
        return read_example_file(Path(data), spec)
    return examples_of_task(read_examples(data, "data"), spec)
