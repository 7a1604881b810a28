"""The published prompt around the memory, and text that cannot become a control token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

SYSTEM = "You are a helpful assistant."
HEAD = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<|vision_start|>"
MEMORY_END = "<|vision_end|>"
ANSWER_START = "<|im_end|>\n<|im_start|>assistant\n"
ANSWER_END = "<|im_end|>"
NEXT_TURN = "\n<|im_start|>user\n"


@dataclass(frozen=True)
class Prompt:
    """Token ids around the memory.

    Attributes:
        head: up to and including the token that opens the visual part.
        suffix: from the token that closes the visual part on; the answer follows.
    """

    head: tuple[int, ...]
    suffix: tuple[int, ...]


@dataclass(frozen=True)
class ConversationTokens:
    """What follows the memory when the answers are known.

    Attributes:
        tokens: questions and answers with all control tokens, from the token that closes the visual part on.
        learnt: whether each token is to be predicted. As published these are, for every answer, the newline after
            the assistant's header, the answer and the token that ends it.
    """

    tokens: tuple[int, ...]
    learnt: tuple[bool, ...]


class PromptBuilder:
    """Tokenises questions into the published prompt: system, then user (memory, question), then assistant.

    Raises:
        ValueError: the tokenizer lacks one of the prompt's control tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._control_tokens = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
        for token in ("<|im_start|>", "<|im_end|>", "<|vision_start|>", MEMORY_END):
            if token not in self._control_tokens:
                raise ValueError(f"the tokenizer has no {token} token; a Qwen2-VL tokenizer is needed")
        self.head = tuple(tokenizer.encode(HEAD, add_special_tokens=False))
        self._memory_end = tuple(tokenizer.encode(MEMORY_END, add_special_tokens=False))
        self._answer_start = tuple(tokenizer.encode(ANSWER_START, add_special_tokens=False))
        self._answer_end = tuple(tokenizer.encode(ANSWER_END, add_special_tokens=False))
        self._next_turn = tuple(tokenizer.encode(NEXT_TURN, add_special_tokens=False))

    def control_tokens_in(self, text: str) -> list[str]:
        """The control tokens that a text spells out, in the order of their ids."""
        return [token for token in self._control_tokens if token in text]

    def build(self, question: str, answer_prefix: str = "") -> Prompt:
        """The prompt for a question.

        Args:
            question: user text; control tokens that it spells out are read letter by letter.
            answer_prefix: what the answer is made to begin with, `Best option: (` in the published evaluation.
        """
        return Prompt(
            head=self.head,
            suffix=(
                *self._memory_end,
                *self.encode_text(question),
                *self._answer_start,
                *self.encode_text(answer_prefix),
            ),
        )

    def build_conversation(self, turns: Sequence[tuple[str, str]]) -> ConversationTokens:
        """The tokens of questions with their answers, in the prompt that `build` makes for a single question."""
        tokens: list[int] = []
        learnt: list[bool] = []
        for question, answer in turns:
            asked = self.build(question).suffix if not tokens else self._continue_with(question)
            answered = (*self.encode_text(answer), *self._answer_end)
            tokens += [*asked, *answered]
            # The header's last token is its newline.
            learnt += [False] * (len(asked) - 1) + [True] * (len(answered) + 1)
        return ConversationTokens(tuple(tokens), tuple(learnt))

    def _continue_with(self, question: str) -> tuple[int, ...]:
        return (*self._next_turn, *self.encode_text(question), *self._answer_start)

    def encode_text(self, text: str) -> Sequence[int]:
        """Tokens of text alone: control tokens that it spells out are read letter by letter."""
        ids = self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        controls = set(self._control_tokens.values()).intersection(ids)
        if controls:
            raise ValueError(f"the text became the control tokens {sorted(controls)}; remove them from it")
        return ids
