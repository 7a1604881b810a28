"""StreamingBench: real-time, omni-source, sequential and proactive questions, each asked at its time stamp.

Files `questions_real.json`, `questions_omni.json`, `questions_sqa.json`, `questions_proactive.json` and their
`*_stream.json` forms; videos beside them under `videos/`. Items have no ids; a question's id is its place,
`<part>_<entry>_<question>`, with the subset before the question in sequential files.

Source: src/data and src/benchmark of THUNLP-MT/StreamingBench.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from fvs_ros.evaluation.benchmarks.question import BenchmarkQuestion
from fvs_ros.evaluation.grading import AnswerKind
from fvs_ros.evaluation.parsing import LETTERS
from fvs_ros.evaluation.records import Record, read_json, read_list, unique

PARTS = ("real", "omni", "sqa", "proactive")
OPTIONS = 4
# Of an annotated question. A result file adds one more, which has the model's name.
FIELDS = frozenset(
    {"task_type", "question", "time_stamp", "answer", "options", "required_ability", "cause", "effect", "audio_path"}
    | {"time", "ground_truth_time_stamp", "ground_truth_output"}
)
# The main setting shows this much before the question; "all context" everything.
MAIN_CONTEXT_S = 60.0
# A proactive question is put once a second, from the second after it was asked to this long after the right moment.
PROACTIVE_POLL_AFTER_S = 4

_INTRODUCTION = (
    "You are an advanced video question-answering AI assistant. You have been provided with {given} and a "
    "multiple-choice question related to the video. Your task is to carefully analyze the video and {task}, choosing "
    "from the four options provided. Respond with only the letter (A, B, C, or D) of the correct option."
)
_CHOICE_INTRODUCTION = _INTRODUCTION.format(
    given="some frames from the video", task="provide the best answer to question"
)
_SEQUENCE_INTRODUCTION = _INTRODUCTION.format(given="a video", task="the provided context to answer the question")
_CONTEXT_HEADING = (
    "Here are the contextual information related to the video. Please answer the questions based on the contextual "
    "information: "
)
_PROACTIVE = (
    "You are an advanced image question-answering AI assistant. You have been provided with images and a question "
    "related to the images. Your task is to carefully analyze the images and provide the answer to the question. You "
    "need to carefully confirm whether the images content meet the conditions of the question, and then output the "
    "correct content.\n\nQuestion: {question}\n\nThe answer is:\n"
)


def proactive_poll(question: BenchmarkQuestion) -> str:
    """What is asked every second of a proactive question, until the answer contains a yes; as published."""
    ready = f'Is it the right time to output "{question.answer}"? You can only answer yes or no.'
    return _PROACTIVE.format(question=f"{question.question} {ready}")


def read(path: Path) -> list[BenchmarkQuestion]:
    """The questions of one file; its name says which part.

    Raises:
        DataError: for a file, an item or a field that is not in StreamingBench's form.
    """
    return unique(located(path))


def located(path: Path) -> Iterator[tuple[Record, BenchmarkQuestion]]:
    """Each question with its record, annotated or answered: further fields are not looked at.

    Annotations are called `questions_real.json` or `questions_real_stream.json`, results `real_output_MODEL.json`.
    """
    found = re.match(rf"(?:questions_)?({'|'.join(PARTS)})(?:_|\.|$)", path.name)
    if not found:
        raise Record(path, "", {}).error(
            f"the name must begin with one of {', '.join(PARTS)}, or with questions_ and one of them"
        )
    part = found.group(1)
    for entry in _entries(path, nested=part == "sqa" and "stream" not in path.name):
        context = ""
        turns: tuple[str, ...] = ()
        for place, subset in entry.items():
            questions = subset.records("questions")
            if not questions:
                raise subset.error("field 'questions' is empty, at least one question expected")
            for index, record in enumerate(questions):
                question = _question(record, subset, f"{part}_{place}_{index}", part, context)
                if part == "sqa":
                    question = replace(question, conversation=(*turns, _turn(record, question, first=not turns)))
                    turns = (*question.conversation, question.answer_letter)
                    context = _with_context(context, record, question)
                yield record, question


def _entries(path: Path, nested: bool) -> Iterator[dict[str, Record]]:
    """Entries whose questions follow on each other: their subsets by their places in the file."""
    if not nested:
        yield from ({str(index): record} for index, record in enumerate(read_list(path)))
        return
    value = read_json(path)
    if not isinstance(value, list) or not value:
        raise Record(path, "", {}).error("a list of lists of objects expected, one inner list a video")
    for index, sequence in enumerate(value):
        if not isinstance(sequence, list) or not sequence:
            raise Record(path, f"item {index}", {}).error("a list of objects expected, the video's questions in order")
        yield {f"{index}_{n}": Record(path, f"item {index}[{n}]", element) for n, element in enumerate(sequence)}


def _question(record: Record, subset: Record, identity: str, part: str, context: str) -> BenchmarkQuestion:
    text = record.text("question")
    question = partial(
        BenchmarkQuestion,
        id=identity,
        video=subset.text("video_path"),
        question=text,
        task=record.text("task_type"),
        mode=part,
        ask_time_s=_clock_seconds(record, "time_stamp"),
    )
    if part == "proactive":
        return question(
            prompt=_PROACTIVE.format(question=text),
            kind=AnswerKind.PROACTIVE,
            answer=record.text("ground_truth_output"),
            answer_time_s=_clock_seconds(record, "ground_truth_time_stamp"),
        )
    letters = LETTERS[:OPTIONS]
    answer = record.text("answer")
    if answer not in letters:
        raise record.error(f"field 'answer' is {answer!r}, one letter of {letters} expected")
    options = _options(record)
    listed = _listed(options)
    if part == "sqa":
        start = f"{_SEQUENCE_INTRODUCTION}\n\n{context}\n\nHere is the question. Answer it and don't confuse it with "
        prompt = f"{start}the previous conversation.\nQuestion: {text}\n\nOptions:\n{listed}\n\nThe best option is:"
    else:
        prompt = f"{_CHOICE_INTRODUCTION}\n\nQuestion: {text}\n\nOptions:\n{listed}\n\nThe best option is:"
    return question(
        prompt=prompt,
        kind=AnswerKind.CHOICE,
        answer=letters.index(answer),
        options=options,
    )


def _turn(record: Record, question: BenchmarkQuestion, *, first: bool) -> str:
    """A sequential question as the next turn of a conversation, in our own arrangement of the published words."""
    introduction = f"{_CHOICE_INTRODUCTION}\n\n" if first else ""
    asked = f"Question at {record.text('time_stamp')}: {question.question}"
    return f"{introduction}{asked}\n\nOptions:\n{_listed(question.options)}\n\nThe best option is:"


def _listed(options: Sequence[str]) -> str:
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


def _with_context(context: str, record: Record, question: BenchmarkQuestion) -> str:
    """The context of later questions about the video: this one and its right answer, as published."""
    listed = ", ".join(f"{letter}. {option}" for letter, option in zip(LETTERS, question.options, strict=False))
    return (
        f"{context or _CONTEXT_HEADING}At timestamp {record.text('time_stamp')}, the following question and answer "
        f"occurred: Question: {question.question}; Options: {listed}; Answer: {question.answer_letter}; "
    )


def _options(record: Record) -> tuple[str, ...]:
    """The four options in the order of their letters, which are taken off.

    Four strings are the four options: by their letters, or by their places where a letter is missing or occurs twice.
    13 of the omni questions hold more strings: blank ones, options cut in two or repeated, a translator's notice. The
    published prompt shows the first four of them, so that right answers are missing; here a string without a letter
    continues the option before it, and repeats and what follows D are left out.
    """
    strings = [text.strip() for text in record.texts("options", blank=True) if text.strip()]
    labelled = [re.match(r"(?:([A-Z])\.)?\s*(.*)$", text, re.DOTALL) for text in strings]
    parts = [(found.group(1) or "", found.group(2).strip()) for found in labelled if found]
    if len(parts) == OPTIONS:
        if sorted(letter for letter, _ in parts) == list(LETTERS[:OPTIONS]):
            parts.sort()
        options = [text for _, text in parts]
    else:
        options = []
        for letter, text in parts:
            if letter and letter == LETTERS[len(options)]:
                options.append(text)
            elif not letter and options:
                options[-1] = f"{options[-1]} {text}"
        options = options[:OPTIONS]
    if len(options) != OPTIONS or not all(options):
        raise record.error(f"field 'options' gives {len(options)} options, {OPTIONS} that are not blank expected")
    return tuple(options)


def _clock_seconds(record: Record, key: str) -> float:
    """A time on the video's clock, `H:MM:SS` or `MM:SS`, as seconds.

    As in the published evaluation, each part may have any number of digits: the one mistyped stamp of the real part,
    "00:12450", is 12450 s and so after the end of its video.

    Raises:
        DataError: if the field is no such time.
    """
    text = record.text(key)
    if not re.fullmatch(r"(?:\d+:)?\d+:\d+", text.strip()):
        raise record.error(f"field {key!r} is {text!r}, a time like 00:01:30 expected")
    seconds = 0
    for part in text.strip().split(":"):
        seconds = seconds * 60 + int(part)
    return float(seconds)
