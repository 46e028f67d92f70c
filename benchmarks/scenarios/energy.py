"""Energy: joules per text, from the counters of the processor (RAPL) or of the GPU (NVML)."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from kdedge.benchmarks.scenarios.series import ScenarioResults, Series
from kdedge.benchmarks.scenarios.workload import Workload
from kdedge.benchmarks.work import single_work

POWERCAP = Path("/sys/class/powercap")
NVML_LIBRARY = "libnvidia-ml.so.1"
BLOCKS = 5
"""Measurements of each subject."""

NOT_READABLE = "energy: not readable here ({})"
IDLE_INCLUDED = "energy: of the whole package or GPU, with the energy that it needs when idle"


@dataclass(frozen=True)
class Counter:
    """An energy counter.

    Attributes:
        name: Such as `package-0`.
        read: Returns the joules since a fixed but unknown moment.
        wraps_at: Joules after which it starts again at 0; None if it does not.
    """

    name: str
    read: Callable[[], float]
    wraps_at: float | None = None

    def spent(self, before: float, after: float) -> float:
        """Return the joules between two readings; the counter may have wrapped once."""
        if after < before and self.wraps_at is not None:
            return after + self.wraps_at - before
        return after - before


def energy(workload: Workload) -> ScenarioResults:
    """Measure joules per text of each subject, in several blocks."""
    counters, reasons = find_counters()
    if not counters:
        return ScenarioResults(notes=(NOT_READABLE.format("; ".join(reasons)),))
    items = workload.singles
    seconds = workload.seconds / (BLOCKS * max(1, len(workload.runners)))
    values: dict[tuple[str, str], list[float]] = {}
    workload.progress.start("energy", BLOCKS)
    for block in range(BLOCKS):
        for key, runner in workload.runners.items():
            work = single_work(runner, items)
            for name, joules in joules_per_text(work, len(items), counters, seconds).items():
                values.setdefault((key, name), []).append(joules)
        workload.progress.advance(block + 1)
    workload.progress.finish()
    series = []
    for (key, name), blocks in values.items():
        series.append(Series("energy", key, np.array(blocks), part=name, unit="J"))
    return ScenarioResults(tuple(series), (IDLE_INCLUDED,))


def joules_per_text(
    work: Callable[[int], object], items: int, counters: list[Counter], seconds: float
) -> dict[str, float]:
    """Classify texts for some seconds; return the joules per text of each counter."""
    before = [counter.read() for counter in counters]
    texts = 0
    end = time.perf_counter() + seconds
    while texts == 0 or time.perf_counter() < end:
        work(texts % items)
        texts += 1
    joules = {}
    for counter, start in zip(counters, before, strict=True):
        joules[counter.name] = counter.spent(start, counter.read()) / texts
    return joules


def find_counters() -> tuple[list[Counter], list[str]]:
    """Return the readable counters of this machine, and why others are not."""
    counters, reasons = rapl_counters(POWERCAP)
    try:
        counters.append(_nvml_counter())
    except OSError as error:
        reasons.append(f"NVML: {error}")
    return counters, reasons


def rapl_counters(folder: Path) -> tuple[list[Counter], list[str]]:
    """Return the counters of the processor packages below `folder`."""
    counters: list[Counter] = []
    # A zone such as intel-rapl:0 is a package; intel-rapl:0:0 is a part of it.
    zones = [zone for zone in sorted(folder.glob("*-rapl:*")) if zone.name.count(":") == 1]
    for zone in zones:
        try:
            name = (zone / "name").read_text().strip()
            wraps_at = int((zone / "max_energy_range_uj").read_text()) / 1e6
            counter = Counter(name, _rapl_reader(zone / "energy_uj"), wraps_at)
            counter.read()
        except (OSError, ValueError) as error:
            return [], [f"RAPL: {error}"]
        # psys is the whole board, packages included.
        if name != "psys":
            counters.append(counter)
    return counters, [] if counters else [f"RAPL: no zone in {folder}"]


def _rapl_reader(path: Path) -> Callable[[], float]:
    return lambda: int(path.read_text()) / 1e6


def _nvml_counter() -> Counter:
    """Return the counter of the first NVIDIA GPU. Raises OSError if there is none."""
    library = ctypes.CDLL(NVML_LIBRARY)
    handle = ctypes.c_void_p()
    _require(library.nvmlInit_v2(), "nvmlInit")
    _require(library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)), "no device")

    def read() -> float:
        millijoules = ctypes.c_ulonglong()
        _require(
            library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)),
            "this GPU has no energy counter",
        )
        return millijoules.value / 1e3

    read()
    return Counter("gpu 0", read)


def _require(status: int, what: str) -> None:
    if status != 0:
        raise OSError(f"{what} (status {status})")
