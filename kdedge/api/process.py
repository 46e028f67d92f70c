"""Leave a Python process as it was: training sets seeds, threads and messages of libraries."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from transformers.utils import logging


@contextmanager
def restored_process() -> Iterator[None]:
    """Silence transformers; at the end restore it, torch's threads and all random states."""
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    threads = torch.get_num_threads()
    verbosity = logging.get_verbosity()
    had_bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_num_threads(threads)
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()
