"""Old names of tests/factories.py, until all tests import it."""

from factories import RUN_MAX_LENGTH as MAX_LENGTH
from factories import make_run

__all__ = ["MAX_LENGTH", "make_run"]
