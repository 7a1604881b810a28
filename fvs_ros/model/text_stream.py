"""Text from tokens, as they come."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerBase


class TextStream:
    """Token ids to text, piece by piece; a character whose bytes span tokens waits until it is whole.

    Attributes:
        text: what has come so far; it only grows.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, on_text: Callable[[str], None] = lambda piece: None) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._on_text = on_text
        self._tokens: list[int] = []
        self.text = ""

    def add(self, token: int) -> None:
        """Takes the next token of the answer."""
        self._tokens.append(token)
        self._emit(self._stream.step(self._tokenizer.backend_tokenizer, token))

    def finish(self) -> str:
        """The whole text; emits what still waited, with bytes that never became a character replaced."""
        text = self._tokenizer.backend_tokenizer.decode(self._tokens, skip_special_tokens=True)
        if text.startswith(self.text):
            self._emit(text[len(self.text) :])
        return self.text

    def _emit(self, piece: str | None) -> None:
        if piece:
            self.text += piece
            self._on_text(piece)
