"""The prompt around the memory, as published or as a family has it, and text that cannot become a control token."""

from __future__ import annotations

import functools
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
class PromptStyle:
    """What stands around the memory, in a family's own words.

    Attributes:
        head: before it.
        memory_end: right behind it.
        step_start: before each of its steps, with the place of the step's time; empty where steps follow each other
            without words.
        step_end: behind each step.
    """

    head: str = HEAD
    memory_end: str = MEMORY_END
    step_start: str = ""
    step_end: str = ""


PUBLISHED_STYLE = PromptStyle()
# As transformers' processor and the chat template that comes with the weights write a video. There is no system prompt.
TIMESTAMPED_STYLE = PromptStyle(
    head="<|im_start|>user\n",
    memory_end="",
    step_start="<{seconds:.1f} seconds><|vision_start|>",
    step_end="<|vision_end|>",
)


class TimeWords:
    """The text tokens around each step of a memory, see `memory.timestamps.StepWords`.

    Attributes:
        after: what stands behind it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, style: PromptStyle) -> None:
        self._start = style.step_start
        self.after = tuple(tokenizer.encode(style.step_end, add_special_tokens=False))
        # A memory's times are mostly those of the memory before it.
        self._encoded = functools.lru_cache(maxsize=4_096)(
            lambda text: tuple(tokenizer.encode(text, add_special_tokens=False))
        )

    def before(self, seconds: float) -> tuple[int, ...]:
        """What stands before a step at that time of the stream."""
        tokens: tuple[int, ...] = self._encoded(self._start.format(seconds=seconds))
        return tokens


@dataclass(frozen=True)
class Prompt:
    """Token ids around the memory.

    Attributes:
        head: up to the memory.
        suffix: from behind it on; the answer follows.
    """

    head: tuple[int, ...]
    suffix: tuple[int, ...]


@dataclass(frozen=True)
class ConversationTokens:
    """What follows the memory when the answers are known.

    Attributes:
        tokens: questions and answers with all control tokens, from behind the memory on.
        learnt: whether each token is to be predicted. As published these are, for every answer, the newline after
            the assistant's header, the answer and the token that ends it.
    """

    tokens: tuple[int, ...]
    learnt: tuple[bool, ...]


class PromptBuilder:
    """Tokenises questions into a prompt: system where the style has one, user (memory, question), then assistant.

    Attributes:
        head: tokens up to the memory.
        words: around each step of the memory; None where there are none.

    Raises:
        ValueError: the tokenizer lacks one of the prompt's control tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, style: PromptStyle = PUBLISHED_STYLE) -> None:
        self._tokenizer = tokenizer
        self._control_tokens = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
        for token in ("<|im_start|>", "<|im_end|>", "<|vision_start|>", MEMORY_END):
            if token not in self._control_tokens:
                raise ValueError(f"the tokenizer has no {token} token; a Qwen2-VL tokenizer is needed")
        self.head = tuple(tokenizer.encode(style.head, add_special_tokens=False))
        self.words = TimeWords(tokenizer, style) if style.step_start else None
        self._memory_end = tuple(tokenizer.encode(style.memory_end, add_special_tokens=False))
        self._answer_start = tuple(tokenizer.encode(ANSWER_START, add_special_tokens=False))
        self._answer_end = tuple(tokenizer.encode(ANSWER_END, add_special_tokens=False))
        self._next_turn = tuple(tokenizer.encode(NEXT_TURN, add_special_tokens=False))

    def control_tokens_in(self, text: str) -> list[str]:
        """The control tokens that a text spells out, in the order of their ids."""
        return [token for token in self._control_tokens if token in text]

    def build(self, question: str, answer_prefix: str = "", turns: Sequence[tuple[str, str]] = ()) -> Prompt:
        """The prompt for a question.

        Args:
            question: user text; control tokens that it spells out are read letter by letter.
            answer_prefix: what the answer is made to begin with, `Best option: (` in the published evaluation.
            turns: earlier questions with their answers, between the memory and this question.
        """
        earlier = [token for asked, answer in turns for token in self._turn(asked, answer)]
        return Prompt(
            head=self.head,
            suffix=(
                *self._memory_end,
                *earlier,
                *self.encode_text(question),
                *self._answer_start,
                *self.encode_text(answer_prefix),
            ),
        )

    def _turn(self, question: str, answer: str) -> tuple[int, ...]:
        """A question that was answered, up to where the next one begins."""
        asked, answered = self.encode_text(question), self.encode_text(answer)
        return (*asked, *self._answer_start, *answered, *self._answer_end, *self._next_turn)

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
