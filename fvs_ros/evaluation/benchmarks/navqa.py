"""NaVQA: 210 questions about seven drives of a robot (CODa), with its poses as the ground truth of places.

Read are either `data.csv` with the windows in `<sequence>/qa_unfilled.json` beside it and CODa's poses in
`poses/dense/<sequence>.txt` (rows of UNIX seconds, x, y, z, qw, qx, qy, qz; metres), or a folder of
`<sequence>/human_qa.json`, which ReMEmbR's own script forms out of the same. That script takes the place and time of a
3-second caption around the annotated time; from `data.csv` they are those of the annotated time itself.

Annotated times are read as UTC-8, the annotators' clock: with it, those of 201 of the 210 questions lie in
their windows, and all recordings are from January and February.

Source: form_question_jsons.py and eval.py of NVIDIA-AI-IOT/remembr.
"""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fvs_ros.evaluation.answers import Answer
from fvs_ros.evaluation.benchmarks.question import BenchmarkQuestion
from fvs_ros.evaluation.errors import DataError
from fvs_ros.evaluation.grading import AnswerKind
from fvs_ros.evaluation.records import Record, read_json, read_text, unique

ANNOTATIONS = "data.csv"
FORMED = "human_qa.json"
KINDS = {
    "position": AnswerKind.POSITION,
    "time": AnswerKind.MINUTES_AGO,
    "duration": AnswerKind.DURATION,
    "binary": AnswerKind.YES_NO,
    "text": AnswerKind.TEXT,
}
# ReMEmbR's models answer with a JSON object under a prompt of their own; a model that answers in words gets these.
_ANSWER_FORMS = {
    "position": "Answer with the position in metres only, as [x, y, z].",
    "time": "Answer with the number of minutes ago only.",
    "duration": "Answer with the number of minutes only.",
    "binary": "Answer with yes or no only.",
    "text": "Answer in a few words.",
}
_CLOCK = datetime.timezone(datetime.timedelta(hours=-8))
_TIME, _TYPE = "Timestamp with answer", "Type (binary, position, time, text)"


@dataclass(frozen=True)
class Poses:
    """Where a robot was, by time.

    Attributes:
        times_s: seconds in rising order.
        positions: x, y, z in metres, one for each.
        orientations: unit quaternions x, y, z, w, one for each.
    """

    times_s: tuple[float, ...]
    positions: tuple[tuple[float, float, float], ...]
    orientations: tuple[tuple[float, float, float, float], ...] = ()

    def at(self, time_s: float) -> tuple[float, float, float]:
        """The position at a time, linear between poses, the first or last one outside of them."""
        x, y, z = (float(np.interp(time_s, self.times_s, axis)) for axis in zip(*self.positions, strict=True))
        return x, y, z


def poses_file(data: Path, sequence: str) -> Path:
    """Where CODa's poses of a sequence lie."""
    return data / "poses" / "dense" / f"{sequence}.txt"


def read_poses(path: Path) -> Poses:
    """CODa's poses of one sequence.

    Raises:
        DataError: with the line's number, for anything but eight numbers a line in the order of time.
    """
    times: list[float] = []
    positions: list[tuple[float, float, float]] = []
    orientations: list[tuple[float, float, float, float]] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            time_s, x, y, z, qw, qx, qy, qz = (float(value) for value in line.split())
        except ValueError:
            raise DataError(path, f"line {number}", "eight numbers expected: seconds x y z qw qx qy qz") from None
        if times and time_s <= times[-1]:
            raise DataError(path, f"line {number}", f"time {time_s} does not follow {times[-1]}")
        times.append(time_s)
        positions.append((x, y, z))
        orientations.append((qx, qy, qz, qw))
    if not times:
        raise DataError(path, "", "holds no poses")
    return Poses(tuple(times), tuple(positions), tuple(orientations))


def read(path: Path) -> list[BenchmarkQuestion]:
    """The questions of `data.csv`, or of a folder of formed ones.

    Raises:
        DataError: for a file, a row or a field that is not in NaVQA's form.
    """
    return unique(_formed(path) if path.is_dir() else _annotated(path))


def _annotated(path: Path) -> Iterator[tuple[Record, BenchmarkQuestion]]:
    windows: dict[str, dict[str, Record]] = {}
    poses: dict[str, Poses] = {}
    for row in _rows(path):
        sequence = row.text("Seq ID").strip()
        if not sequence.isdecimal():
            raise row.error(f"column 'Seq ID' is {sequence!r}, a number expected")
        if sequence not in windows:
            file = path.parent / sequence / "qa_unfilled.json"
            windows[sequence] = {one.identity(): one for one in Record(file, "", read_json(file)).records("data")}
            poses[sequence] = read_poses(poses_file(path.parent, sequence))
        identity = row.text("UUID")
        if identity not in windows[sequence]:
            raise row.error(f"UUID {identity!r} is unknown to {sequence}/qa_unfilled.json")
        yield row, _from_row(row, sequence, windows[sequence][identity], poses[sequence])


def _rows(path: Path) -> Iterator[Record]:
    text = read_text(path)
    rows = csv.DictReader(io.StringIO(text, newline=""))
    # The published header has line breaks inside its names.
    names = [" ".join(name.split()) for name in rows.fieldnames or ()]
    missing = [name for name in ("UUID", "Seq ID", "Question", _TIME, _TYPE, "Parsable answer") if name not in names]
    if missing:
        raise DataError(path, "line 1", f"column {missing[0]!r} is missing; the columns are {', '.join(names)}")
    rows.fieldnames = names
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise DataError(path, f"row {number}", f"has more than the {len(names)} columns of the header")
        yield Record(path, f"row {number}", row)


def _from_row(row: Record, sequence: str, window: Record, poses: Poses) -> BenchmarkQuestion:
    type_name = _type(row, _TYPE)
    start, end = window.number("start_time"), window.number("end_time")
    annotated = [_clock_time(row, text, start) for text in row.text(_TIME).split(",")]
    answer: Answer
    if type_name in ("position", "time") and len(annotated) != 1:
        raise row.error(f"{len(annotated)} annotated times, one expected for a {type_name} question")
    if type_name == "position":
        answer = poses.at(annotated[0])
    elif type_name == "time":
        answer = (end - annotated[0]) / 60
    elif type_name == "duration":
        answer = _minutes(row)
    elif type_name == "binary":
        answer = _binary(row, row.text("Parsable answer"))
    else:
        given = row.raw("Text answer")
        answer = given if isinstance(given, str) and given.strip() else row.text("Parsable answer")
    x, y, z = poses.at(end)
    clock = [datetime.datetime.fromtimestamp(time_s, _CLOCK).strftime("%Y-%m-%d %H:%M:%S") for time_s in (start, end)]
    text = row.text("Question")
    asked = (
        f"You started moving at {clock[0]}. The current time is {clock[1]} and you are located at "
        f"[{x:.2f}, {y:.2f}, {z:.2f}]. \n {text}"
    )
    return _question(row.text("UUID"), sequence, text, asked, type_name, answer, window)


def _question(
    identity: str, sequence: str, text: str, asked: str, type_name: str, answer: Answer, window: Record
) -> BenchmarkQuestion:
    start, end = window.number("start_time"), window.number("end_time")
    if not start < end:
        raise window.error(f"start_time {start} is not before end_time {end}")
    return BenchmarkQuestion(
        id=identity,
        video=sequence,
        question=text,
        prompt=f"{asked}\n{_ANSWER_FORMS[type_name]}",
        kind=KINDS[type_name],
        answer=answer,
        task=type_name,
        start_time_s=start,
        ask_time_s=end,
        groups={"length": (window.text("length_category").lower(),)},
    )


def _formed(folder: Path) -> Iterator[tuple[Record, BenchmarkQuestion]]:
    files = sorted(folder.glob(f"*/{FORMED}"))
    if not files:
        raise DataError(folder, "", f"has no <sequence>/{FORMED}; give data.csv, or the folder of formed questions")
    for path in files:
        for record in Record(path, "", read_json(path)).records("data"):
            record = record.named(f"{record.item}, id {record.identity()}")
            type_name = _type(record, "type")
            asked = record.text("question")
            text = asked.rpartition("\n")[2].strip()
            answer = _formed_answer(record, type_name)
            yield record, _question(record.identity(), path.parent.name, text, asked, type_name, answer, record)


def _formed_answer(record: Record, type_name: str) -> Answer:
    answers = record.record("answers")
    if type_name == "position":
        position = answers.numbers("position")
        if len(position) not in (2, 3):
            raise answers.error(f"field 'position' has {len(position)} numbers, x, y, z expected")
        return position
    if type_name in ("time", "duration"):
        return answers.number(type_name)
    texts = answers.texts("text")
    # The published scorer compares with the second text.
    return _binary(answers, texts[-1]) if type_name == "binary" else texts[0]


def _type(record: Record, key: str) -> str:
    name = record.text(key).strip()
    if name not in KINDS:
        raise record.error(f"type {name!r} is unknown, one of {', '.join(KINDS)} expected")
    return name


def _clock_time(row: Record, text: str, start_s: float) -> float:
    """A time of day on the day that a window starts, as UNIX seconds."""
    found = re.fullmatch(r"(\d{1,2}):(\d\d):(\d\d)", text.strip())
    try:
        hour, minute, second = (int(part) for part in found.groups()) if found else (-1, 0, 0)
        day = datetime.datetime.fromtimestamp(start_s, _CLOCK)
        return day.replace(hour=hour, minute=minute, second=second, microsecond=0).timestamp()
    except ValueError:
        raise row.error(f"annotated time {text.strip()!r}, a time like 07:59:00 expected") from None


def _minutes(row: Record) -> float:
    text = row.text("Parsable answer").strip()
    try:
        return float(text)
    except ValueError:
        raise row.error(f"parsable answer {text!r}, a number of minutes expected") from None


def _binary(record: Record, text: str) -> bool:
    said = text.strip().lower()
    if said not in ("yes", "no"):
        raise record.error(f"answer {text!r}, yes or no expected")
    return said == "yes"
