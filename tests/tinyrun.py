"""Old names of tests/factories.py, until all tests import it."""

from factories import make_recipe as recipe
from factories import tinybert_config as tinybert
from factories import write_data_and_teacher as prepare

__all__ = ["prepare", "recipe", "tinybert"]
