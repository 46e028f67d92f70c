"""Old names of tests/factories.py, until all tests import it."""

from factories import BAD, GOOD, THINGS, bert, pair_task, sentences, single_task, tokenizer

__all__ = ["BAD", "GOOD", "THINGS", "bert", "pair_task", "sentences", "single_task", "tokenizer"]
