"""Old names of tests/factories.py, until all tests import it."""

from factories import Batches
from factories import calibrated_bert as small_bert
from factories import single_text_batches as texts_of

__all__ = ["Batches", "small_bert", "texts_of"]
