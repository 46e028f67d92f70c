"""Offered load: requests arrive at random, whether or not earlier ones are answered.

A closed loop sends the next request after the last answer. A slow answer then delays the requests
that would have waited for it, and their waiting is never measured ("coordinated omission"). Here
the arrivals are fixed before the measurement, and latency counts from the scheduled arrival.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from kdedge.benchmarks.scenarios.series import ScenarioResults, Series
from kdedge.benchmarks.scenarios.workload import Workload
from kdedge.benchmarks.subjects import Runner
from kdedge.benchmarks.work import Batch

SHARES = (0.25, 0.5, 0.75, 0.9)
"""Offered rates as shares of a subject's capacity, if no rates are given."""

CAPACITY_TEXTS = 40
"""Texts that measure a capacity."""

MIN_REQUESTS, MAX_REQUESTS = 100, 5000
"""Fewest and most requests of one rate."""

SPIN_S = 1e-3
"""A wait ends with a busy loop of this length: a sleep can end late by that much."""

Clock = Callable[[], float]
Wait = Callable[[float], None]


def load(workload: Workload) -> ScenarioResults:
    """Measure the latency of requests to one worker at each rate."""
    items = workload.singles
    runners = workload.runners
    capacities = {key: _capacity(runner, items) for key, runner in runners.items()}
    rates = {key: workload.options.rates or _rates(capacities[key]) for key in runners}
    runs = sum(map(len, rates.values()))
    series = []
    workload.progress.start("offered load", runs)
    for key, runner in runners.items():
        answer = _answer(runner, items)
        for rate in rates[key]:
            count = request_count(rate, workload.seconds / runs)
            due = arrivals(rate, count, workload.options.seed)
            latency, service = serve_arrivals(answer, due)
            series.append(Series("load", key, latency, at=rate, part="latency"))
            series.append(Series("load", key, service, at=rate, part="service"))
            workload.progress.advance(len(series) // 2, f"{key}, {rate:g} texts/s")
    workload.progress.finish()
    return ScenarioResults(tuple(series))


def arrivals(rate: float, count: int, seed: int) -> np.ndarray:
    """Draw arrivals of a Poisson process, in seconds from its start. *Shape:* (count,)"""
    gaps = np.random.default_rng(seed).exponential(1 / rate, count)
    return np.cumsum(gaps)


def serve_arrivals(
    answer: Callable[[int], object],
    due: np.ndarray,
    *,
    clock: Clock = time.perf_counter,
    wait: Wait | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Answer request i when it is due, or as soon as the requests before it are answered.

    Args:
        answer: Answers request i.
        due: Scheduled arrivals in seconds. *Shape:* (n,)
        clock: Returns the time in seconds.
        wait: Waits until a time of the clock; returns at once if it has passed.

    Returns:
        Seconds from the scheduled arrival to the answer, and seconds of the answer alone. Each:
        *Shape:* (n,)
    """
    wait = wait or wait_until
    latency, service = np.zeros(len(due)), np.zeros(len(due))
    start = clock()
    for number, offset in enumerate(due.tolist()):
        wait(start + offset)
        begun = clock()
        answer(number)
        end = clock()
        latency[number] = end - (start + offset)
        service[number] = end - begun
    return latency, service


def wait_until(moment: float) -> None:
    """Sleep until shortly before a time of `perf_counter`, then spin."""
    left = moment - time.perf_counter()
    if left > SPIN_S:
        time.sleep(left - SPIN_S)
    while time.perf_counter() < moment:
        pass


def request_count(rate: float, seconds: float) -> int:
    """Return the number of requests at a rate in some seconds, within limits."""
    return int(min(MAX_REQUESTS, max(MIN_REQUESTS, rate * seconds)))


def _rates(capacity: float) -> tuple[float, ...]:
    """Return shares of a capacity, rounded to three digits."""
    return tuple(float(f"{share * capacity:.3g}") for share in SHARES)


def _capacity(runner: Runner, items: list[Batch]) -> float:
    """Return how many texts per second a subject answers one after another."""
    answer = _answer(runner, items)
    for number in range(3):
        answer(number)
    start = time.perf_counter()
    for number in range(CAPACITY_TEXTS):
        answer(number)
    return CAPACITY_TEXTS / (time.perf_counter() - start)


def _answer(runner: Runner, items: list[Batch]) -> Callable[[int], object]:
    def answer(number: int) -> object:
        return runner.run(runner.encode(*items[number % len(items)]))

    return answer
