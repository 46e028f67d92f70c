"""`kdedge distill` as a SageMaker training job.

    python -m kdedge.cli.sagemaker train

is the entry point of the container in configs/sagemaker/. It reads channels and hyper-parameters
from the environment of the SageMaker training toolkit (SM_MODEL_DIR ...) or from /opt/ml.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from kdedge.cli.main import main
from kdedge.cli.sagemaker_job import TrainingJob, job_environment
from kdedge.errors import Interrupted, KdedgeError
from kdedge.printable import printable_lines

FAILURE_LENGTH = 1024
"""SageMaker shows this many characters of the failure file."""


@contextmanager
def failure_file(folder: Path) -> Iterator[None]:
    """Write the reason into `failure` in the folder if the block fails, for SageMaker to show."""
    try:
        yield
    except (Interrupted, click.exceptions.Exit):  # a stopped job has not failed
        raise
    except Exception as error:
        if isinstance(error, KdedgeError):
            reason = error.format()
        else:
            reason = f"{type(error).__name__}: {error}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "failure").write_text(printable_lines(reason)[:FAILURE_LENGTH], encoding="utf-8")
        raise


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def train(arguments: tuple[str, ...]) -> None:
    """Run the training job of this container.

    The ARGUMENTS that SageMaker passes are ignored: the environment contains the same values.

    \b
    Example: python -m kdedge.cli.sagemaker train
    """
    environment = job_environment(os.environ)
    with failure_file(Path(environment["SM_OUTPUT_DIR"])):
        from kdedge.cli.sagemaker_output import run_job

        run_job(TrainingJob.from_environment(environment))


if __name__ == "__main__":
    main(train)
