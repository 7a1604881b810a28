"""EgoSchema, MLVU, LVBench, MVBench and Video-MME, in the form that Flash-VStream published them in.

One JSON list `test_qa.json` per set, options inlined in the question's text, and frames at 1 fps under
`frames/<video_id>/NNNNNN.jpg`. Source: eval_any_dataset.py and inference_mcq_vqa.py of Flash-VStream (Qwen2-VL).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fvs_ros.evaluation.benchmarks.question import BenchmarkQuestion, choice_index
from fvs_ros.evaluation.grading import AnswerKind
from fvs_ros.evaluation.parsing import inline_options
from fvs_ros.evaluation.questions import ANSWER_PREFIX, INSTRUCTION
from fvs_ros.evaluation.records import Record, read_list, unique

ANNOTATIONS = "test_qa.json"
SUBTITLE_INSTRUCTION = INSTRUCTION.replace("based on the video", "based on the video and the subtitles")
SUBTITLE_HEADING = "This video's subtitles are listed below: \n"
NO_SUBTITLES = "No subtitles available"


@dataclass(frozen=True)
class _Form:
    """What a set's items hold besides id, video, question and answer.

    Attributes:
        task: field with the task, empty where the set has none.
        groups: fields to break scores down by: a text, or a list of texts.
        numbers: further fields that must be numbers.
    """

    task: str = ""
    groups: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()


_FORMS = {
    "egoschema": _Form(numbers=("duration",)),
    "mlvu": _Form(task="type", numbers=("duration",)),
    "lvbench": _Form(groups=("question_type", "type"), numbers=("duration_minutes",)),
    "mvbench": _Form(task="task_type"),
    "videomme": _Form(groups=("duration", "domain", "sub_category", "task_type")),
}


def subtitle_prompt(question: str, subtitles: str) -> str:
    """The published user turn of Video-MME with subtitles; `subtitles` as `visible_subtitles` gives them."""
    return f"{SUBTITLE_HEADING}{subtitles or NO_SUBTITLES}\n{SUBTITLE_INSTRUCTION}{question}"


def read(path: Path, name: str) -> list[BenchmarkQuestion]:
    """The questions of the annotation file of the set `name`.

    Raises:
        DataError: for a file, an item or a field that is not in the set's form.
    """
    return unique(_questions(path, _FORMS[name]))


def _questions(path: Path, form: _Form) -> Iterator[tuple[Record, BenchmarkQuestion]]:
    for item in read_list(path):
        record = item.named(f"{item.item}, id {item.identity()}")
        text = record.text("question")
        options = inline_options(text)
        if not options:
            raise record.error("field 'question' lists no options, lines '(A) ...' or 'A. ...' from A on expected")
        for key in form.numbers:
            record.number(key)
        groups = {
            key: record.texts(key) if isinstance(record.raw(key), list) else (record.text(key),) for key in form.groups
        }
        yield (
            record,
            BenchmarkQuestion(
                id=record.identity(),
                video=record.text("video_id"),
                question=text,
                prompt=INSTRUCTION + text,
                answer_prefix=ANSWER_PREFIX,
                kind=AnswerKind.CHOICE,
                answer=choice_index(record, "answer", options),
                options=options,
                task=record.text(form.task) if form.task else "",
                groups=groups,
            ),
        )
