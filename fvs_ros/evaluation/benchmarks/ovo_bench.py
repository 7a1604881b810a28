"""OVO-Bench (CVPR 2025): questions about the past, the present and what is to come, each asked at its second.

One JSON list, `ovo_bench_new.json`; videos under `src_videos/`. Forward questions are probed at several times; each
probe is one question here, with the id `<id>_<probe>` that the benchmark's own clips have. The published clips are
cut at the next whole second after `realtime`; here nothing after `realtime` itself is seen.

Source: data/ovo_bench_new.json, constant.py and utils/OVOBench.py of JoeLeelyf/OVO-Bench.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fvs_ros.evaluation.benchmarks.question import BenchmarkQuestion, choice_index
from fvs_ros.evaluation.grading import AnswerKind
from fvs_ros.evaluation.parsing import LETTERS
from fvs_ros.evaluation.records import Record, read_list, unique

ANNOTATIONS = "ovo_bench_new.json"
TASKS = {
    "backward": ("EPM", "ASI", "HLD"),
    "realtime": ("OCR", "ACR", "ATR", "STU", "FPD", "OJR"),
    "forward": ("REC", "SSR", "CRR"),
}
MODE_OF_TASK = {task: mode for mode, tasks in TASKS.items() for task in tasks}

# Our own wording of what the benchmark asks for: its texts are CC BY-NC-SA 4.0, which this package's licence does not
# allow for. Scores of answers to these prompts can differ a little from published ones.
_CHOICE = """Question: {question}
Options:
{options}
Reply with the letter of the right option and nothing else."""
_REPETITION = """Somebody in the video repeats an action. Count over the whole video so far, all people together, and
only complete repetitions: how many times did they {activity}?
Reply with one number and nothing else."""
_STEP = """The video is a tutorial. Is this step of it being carried out right now?
{step}
Reply with Yes or No and nothing else."""
_CLUE = """This question is about the newest frames of the video:
{question}
Does what was shown so far suffice to answer it?
Reply with Yes or No and nothing else."""


def task_mode(record: Record) -> tuple[str, str]:
    """The field `task`, and the mode that it belongs to.

    Raises:
        DataError: if OVO-Bench has no such task.
    """
    task = record.text("task")
    if task not in MODE_OF_TASK:
        raise record.error(f"field 'task' is {task!r}, one of {', '.join(MODE_OF_TASK)} expected")
    return task, MODE_OF_TASK[task]


def read(path: Path) -> list[BenchmarkQuestion]:
    """The questions of an annotation file, forward ones once per probe.

    Raises:
        DataError: for a file, an item or a field that is not in OVO-Bench's form.
    """
    return unique(_questions(path))


def _questions(path: Path) -> Iterator[tuple[Record, BenchmarkQuestion]]:
    for item in read_list(path):
        record = item.named(f"{item.item}, id {item.identity()}")
        task, mode = task_mode(record)
        if mode == "forward":
            yield from forward_probes(record, task)
        else:
            yield record, _choice(record, task, mode)


def _choice(record: Record, task: str, mode: str) -> BenchmarkQuestion:
    options = record.texts("options")
    listed = "; ".join(f"{LETTERS[index]}. {option}" for index, option in enumerate(options)) + ";"
    return BenchmarkQuestion(
        id=record.identity(),
        video=record.text("video"),
        question=record.text("question"),
        prompt=_CHOICE.format(question=record.text("question"), options=listed),
        kind=AnswerKind.CHOICE,
        answer=choice_index(record, "gt", options),
        options=options,
        task=task,
        mode=mode,
        ask_time_s=_seconds(record, "realtime"),
    )


def forward_probes(record: Record, task: str) -> Iterator[tuple[Record, BenchmarkQuestion]]:
    """The probes of a forward item, annotated or answered; a `response` in them is not looked at."""
    probes = record.records("test_info")
    if not probes:
        raise record.error("field 'test_info' is empty, at least one probe expected")
    for index, probe in enumerate(probes):
        if task == "REC":
            activity = record.text("activity")
            question, prompt = f"How many times did they {activity}?", _REPETITION.format(activity=activity)
        elif task == "SSR":
            question = probe.text("step")
            prompt = _STEP.format(step=question)
        else:
            question = record.text("question")
            prompt = _CLUE.format(question=question)
        yield (
            probe,
            BenchmarkQuestion(
                id=f"{record.identity()}_{index}",
                video=record.text("video"),
                question=question,
                prompt=prompt,
                kind=AnswerKind.COUNT if task == "REC" else AnswerKind.YES_NO,
                answer=_count(probe) if task == "REC" else _yes_no(probe),
                task=task,
                mode="forward",
                ask_time_s=_seconds(probe, "realtime"),
            ),
        )


def _seconds(record: Record, key: str) -> float:
    seconds = record.number(key)
    if seconds < 0:
        raise record.error(f"field {key!r} is {seconds:g}, seconds from 0 on expected")
    return seconds


def _count(probe: Record) -> int:
    count = probe.integer("count")
    if count < 0:
        raise probe.error(f"field 'count' is {count}, 0 or more expected")
    return count


def _yes_no(probe: Record) -> bool:
    value = probe.integer("type")
    if value not in (0, 1):
        raise probe.error(f"field 'type' is {value}, 0 (no) or 1 (yes) expected")
    return value == 1
