from __future__ import annotations
from pathlib import Path
import numpy as np
import pyarrow.parquet as pq
from kdedge.data.shares import draw_share, text_keys
from kdedge.data.task import Split, Task
from kdedge.runtime.metrics import DEFAULT_METRIC
from kdedge.runtime.spec import TaskSpec
def load_task(data, task, *, name, seed, progress=None):
    def rd(s):
        d=pq.read_table(Path(data.source)/f"{s}.parquet").to_pydict()
        lab=np.array(d[data.label], dtype=np.float32 if task.kind=="regression" else np.int64)
        return Split(tuple(d[data.text]), tuple(d[data.pair]) if data.pair else None, lab)
    train=rd(data.train)
    def part(what, tag):
        nonlocal train
        if isinstance(what,float):
            train, got = draw_share(train, what, seed, tag); return got
        return rd(what)
    report=part(data.report,"report"); select=part(data.select,"select")
    notes=()
    seen=set(text_keys(report))|set(text_keys(select)); keys=text_keys(train)
    keep=[i for i,k in enumerate(keys) if k not in seen]
    notes=(f"{len(train)-len(keep)} dropped",); train=train.take(keep)
    labels=tuple(task.labels) if task.labels else (("score",) if task.kind=="regression" else tuple(str(i) for i in range(int(train.labels.max())+1)))
    return Task(TaskSpec(name, task.kind, labels, task.metric or DEFAULT_METRIC[task.kind], data.pair is not None), train, select, report, notes)
