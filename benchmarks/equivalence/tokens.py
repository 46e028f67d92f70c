"""Count the tokens of texts as a bundle reads them."""

from __future__ import annotations

import numpy as np
from kdedge.benchmarks.examples import Examples

from kdedge.runtime import Bundle
from kdedge.runtime.text_encoder import TextEncoder


def token_counts(bundle: Bundle, examples: Examples) -> np.ndarray:
    """Return the number of tokens that a bundle reads of each text, after truncation: (N,)."""
    rows, _ = TextEncoder(bundle).tokenize(examples.texts, examples.pairs)
    return np.array([len(row["input_ids"]) for row in rows])
