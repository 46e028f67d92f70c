"""Word embeddings that share a part with all pieces of the same letters.

The vector of a piece is `own[piece] + mean(shared[g] for g in its n-grams)`, after fastText
(Bojanowski et al. 2017, arXiv:1607.04606, eq. in section 3.2; the mean instead of the sum keeps the
size of a step). After the training both parts are added up, so a device needs no n-grams.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from kdedge.students.subset_embedding import SubsetEmbedding, train_used_embeddings_only

LENGTHS = (2, 3, 4)
NONE = 0
"""The index that fills up the n-grams of a piece; its vector is 0 and does not count."""


def character_ngrams(piece: str) -> list[str]:
    """List the n-grams of 2 to 4 characters of a WordPiece.

    `<` marks the start of a word and `>` the end of a piece. A piece inside a word has no `<`.

    Example:
        >>> character_ngrams("##ed")
        ['ed', 'd>', 'ed>']
        >>> character_ngrams("a")
        ['<a', 'a>', '<a>']
    """
    inside = piece.startswith("##")
    text = f"{piece[2:]}>" if inside else f"<{piece}>"
    return [text[i : i + n] for n in LENGTHS for i in range(len(text) - n + 1)]


def ngram_table(pieces: Sequence[str], used: np.ndarray, special: set[str]) -> torch.Tensor:
    """Number the n-grams that at least two of the used pieces have.

    Args:
        pieces: The vocabulary, in the order of its ids. *Shape:* (V,)
        used: Ids of the pieces that are trained. *Shape:* (U,)
        special: Pieces without letters of their own, such as `[CLS]`.

    Returns:
        The n-grams of every piece, filled up with `NONE`. *Shape:* (V, largest number)
    """
    ngrams = [[] if piece in special else character_ngrams(piece) for piece in pieces]
    counts = Counter(ngram for row in used for ngram in set(ngrams[row]))
    shared = [ngram for ngram, count in counts.items() if count > 1]
    numbers = {ngram: number for number, ngram in enumerate(shared, NONE + 1)}
    rows = [[numbers[ngram] for ngram in of_piece if ngram in numbers] for of_piece in ngrams]
    width = max(1, *map(len, rows))
    return torch.tensor([row + [NONE] * (width - len(row)) for row in rows])


class CharacterEmbedding(nn.Module):
    """The trained rows of an embedding, plus the mean of their shared n-grams, which start at 0.

    Args:
        own: The trained rows. *Shape of its table:* (U, H)
        ngrams: The n-grams of each row. *Shape:* (U, N)
        count: Number of different n-grams, `NONE` included.
    """

    ngrams: torch.Tensor

    def __init__(self, own: SubsetEmbedding, ngrams: torch.Tensor, count: int) -> None:
        super().__init__()
        self.own = own
        weight = torch.zeros(count, own.rows.embedding_dim)
        self.shared = nn.EmbeddingBag.from_pretrained(
            weight, freeze=False, mode="mean", padding_idx=NONE
        )
        self.register_buffer("ngrams", ngrams, persistent=False)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (B, T, H) of token ids (B, T)."""
        rows, places = self.own.positions[input_ids].unique(return_inverse=True)
        vectors: torch.Tensor = self.own.rows(rows) + self.shared(self.ngrams[rows])
        return vectors[places]


@contextmanager
def train_character_embeddings(
    model: PreTrainedModel, used: np.ndarray, tokenizer: PreTrainedTokenizerFast
) -> Iterator[None]:
    """Train the embeddings of the token ids `used`, and n-grams that they share.

    Afterwards the model has one table again. Pieces that were not used have their n-grams too.
    """
    whole: nn.Embedding = model.get_input_embeddings()
    with train_used_embeddings_only(model, used):
        own: SubsetEmbedding = model.get_input_embeddings()
        rows = torch.nonzero(own.positions >= 0).flatten()
        pieces = tokenizer.convert_ids_to_tokens(list(range(whole.num_embeddings)))
        table = ngram_table(pieces, rows.cpu().numpy(), set(tokenizer.all_special_tokens))
        table = table.to(own.positions.device)
        both = CharacterEmbedding(own, table[rows], int(table.max()) + 1).to(table.device)
        model.set_input_embeddings(both)
        try:
            yield
        finally:
            model.set_input_embeddings(own)
            with torch.no_grad():
                own.rows.weight += both.shared(table[rows])
    unused = torch.nonzero(own.positions < 0).flatten()
    with torch.no_grad():
        whole.weight[unused] += both.shared(table[unused]).to(whole.weight.device)
