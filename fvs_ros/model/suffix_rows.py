"""The rows of questions: what is kept on the device for each question and its answer while it is open."""

from __future__ import annotations

from fvs_ros.model.allowed_tokens import AllowedTokens
from fvs_ros.model.confidence import RowLikelihood
from fvs_ros.model.decoder import Decoder
from fvs_ros.model.generation import Generation
from fvs_ros.model.relevance import RowAttention

FIRST_ROWS, FIRST_TOKENS = 4, 256


class SuffixRows:
    """Keys and values of the questions' own tokens and what goes with them, one row a generation.

    The last column is for discarding.

    Args:
        decoder: allocates keys and values.
        layers: whose attention is observed.
        heads: query heads of a layer.
        slots: that a memory can have.
        vocabulary: tokens that an answer may have.

    Attributes:
        cache: keys and values of all rows.
        attention: of the rows' newest tokens to the memory.
        likelihood: of the rows' answers.
        allowed: what the rows' answers may go on with.
    """

    def __init__(self, decoder: Decoder, layers: tuple[int, ...], heads: int, slots: int, vocabulary: int) -> None:
        self._decoder = decoder
        self._owners: list[Generation | None] = [None] * FIRST_ROWS
        self.cache = decoder.allocate(FIRST_ROWS, FIRST_TOKENS + 1)
        self.attention = RowAttention.zeros(FIRST_ROWS, layers, heads, slots, decoder.device)
        self.likelihood = RowLikelihood.zeros(FIRST_ROWS, decoder.device)
        self.allowed = AllowedTokens(FIRST_ROWS, vocabulary, decoder.device)

    def allocate(self, generation: Generation, tokens: int) -> None:
        """Gives a generation the first row without one, or whose generation is closed; grows where needed."""
        free = [row for row, owner in enumerate(self._owners) if owner is None or owner.closed]
        rows, width = len(self._owners), self.cache.tokens - 1
        if not free or tokens > width:
            self._grow(rows if free else 2 * rows, width if tokens <= width else 1 << (tokens - 1).bit_length())
        generation.row = free[0] if free else rows
        self._owners[generation.row] = generation

    def _grow(self, rows: int, tokens: int) -> None:
        grown = self._decoder.allocate(rows, tokens + 1)
        old_rows, old_tokens = len(self._owners), self.cache.tokens - 1
        for old, new in ((self.cache.keys, grown.keys), (self.cache.values, grown.values)):
            new[:, :old_rows, :old_tokens] = old[:, :, :old_tokens]
        self._owners += [None] * (rows - old_rows)
        self.attention = self.attention.grown(rows)
        self.likelihood = self.likelihood.grown(rows)
        self.allowed = self.allowed.grown(rows)
        self.cache = grown
