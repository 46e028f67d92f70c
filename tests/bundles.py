"""Old names of tests/factories.py, until all tests import it."""

from factories import BUNDLE_FILES as HELD
from factories import BUNDLE_MAX_LENGTH as LENGTH
from factories import TASKS, tiny_bundle
from factories import copy_bundle as copy_of
from factories import export_input as ingredients
from factories import pack_bundle as pack
from factories import random_student as student

__all__ = ["HELD", "LENGTH", "TASKS", "copy_of", "ingredients", "pack", "student", "tiny_bundle"]
