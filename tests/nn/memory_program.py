"""Train a small BERT in a process whose memory is limited: FOLDER MEGABYTES (0 is no limit).

A whole batch needs about 800 MB. The program prints how much memory the system can still get back
after the training. What libraries allocate once, which differs between CPUs, does not count.
"""

from __future__ import annotations

import ctypes
import gc
import re
import resource
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import factories

from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.nn.label_loss import LabelLossModule
from kdedge.nn.training import train
from kdedge.nn.training_plan import Training
from kdedge.recipe import FitConfig
from kdedge.run.progress import Silent

LENGTH = 128
TEXTS = 1024


class Printed(Silent):
    def say(self, line: str) -> None:
        sys.stdout.write(line + "\n")


def used_megabytes(name: str) -> int:
    """Return VmRSS (memory now) or VmHWM (its peak) of this process."""
    (line,) = re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) >> 10


def limit_memory(megabytes: int) -> None:
    """Let the address space grow by some megabytes from now on."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main(folder: Path, megabytes: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = factories.bert(
        hidden=64,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    data = Encoded.of(np.random.default_rng(0).integers(5, 200, (TEXTS, LENGTH)).tolist())
    data.columns["labels"] = np.arange(TEXTS) % 2
    plan = Training(
        fit=FitConfig(epochs=2, batch_size=TEXTS, learning_rate=1e-3, checks=1),
        seed=0,
        data=data,
        pad=PaddingCollator(0),
        predict=lambda module: np.zeros((TEXTS, 2), np.float32),
        score=lambda logits: 0.0,
        title="limited",
    )
    module = LabelLossModule(model)
    # Threads and buffers of the optimizer exist before memory is limited.
    module(**plan.pad(data.take([0, 1])))["loss"].backward()
    model.zero_grad()
    if megabytes:
        limit_memory(megabytes)
    before = used_megabytes("VmRSS")
    train(module, plan, folder, progress=Printed())
    peak, after = used_megabytes("VmHWM"), used_megabytes("VmRSS")
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    kept = after - used_megabytes("VmRSS")
    sys.stdout.write(f"peak {peak - before} MB, kept {kept} MB\n")
    total = sum(float(value.double().abs().sum()) for value in model.state_dict().values())
    sys.stdout.write(f"weights {total:.6f}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
