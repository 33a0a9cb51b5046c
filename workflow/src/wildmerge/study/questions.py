"""Questions and texts of one's own: a file that is a task of a suite, read row by row.

A CSV, JSONL or Parquet file has a question a row: the question, its choices and the right one. A
text file has a document a paragraph; in the other formats a document is a row.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from wildmerge import WildmergeError

# What lm-eval's templates over such a file read: the names of the columns that are made.
COLUMNS = {"question": "question", "choices": "choices", "answer": "answer"}
TEXT = {"text": "text"}
BITS = "bits_per_byte"
FILES = ("file", "examples")
_FORMATS = (".jsonl", ".csv", ".parquet")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Row = dict[str, Any]


def local_data(settings: Mapping[str, Any]) -> list[str]:
    """The files of this machine that a task file of lm-eval takes its data from.

    Args:
        settings: what it says.
    """
    if settings.get("dataset_path") not in ("json", "csv", "parquet", "text", "arrow"):
        return []
    files = list(each((settings.get("dataset_kwargs") or {}).get("data_files") or []))
    return [] if any("://" in file for file in files) else files


def each(files: Mapping[str, Any] | list[Any] | str) -> Iterator[str]:
    """The files of lm-eval's `data_files`, in any of its forms."""
    if isinstance(files, str):
        yield files
    else:
        for value in files.values() if isinstance(files, Mapping) else files:
            yield from each(value)


def columns_of(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Which column of a task's file is what; a list of columns for choices that stand apart."""
    given: dict[str, Any] = wanted.get("columns", {})
    return (TEXT if wanted["metric"] == BITS else COLUMNS) | given


def is_parsed(wanted: Mapping[str, Any]) -> bool:
    """Whether a file's columns are questions, choices and answers, not those of a template."""
    return not isinstance(wanted.get("template"), str) or "columns" in wanted


def check_file(wanted: Mapping[str, Any], place: str) -> None:
    """Look at the head of a task's files.

    Args:
        wanted: its entry in suites.yaml.
        place: names it in messages.

    Raises:
        WildmergeError: a file is missing or of another format, or lacks a column that is named.
    """
    for key in FILES:
        if key not in wanted:
            continue
        path = Path(wanted[key])
        allowed = (*_FORMATS, ".txt") if wanted["metric"] == BITS else _FORMATS
        if not path.is_file() or path.suffix not in allowed:
            found = "another kind of file" if path.is_file() else "no file there"
            raise WildmergeError(
                f"{place}: a file {', '.join(allowed)} was expected at {path} (from the folder "
                f"that the workflow runs in), found {found}. Correct `{key}`."
            )
        rows = list(islice(read_rows(path), 1))
        if not rows:
            raise WildmergeError(
                f"{place}: a question or document was expected in {path}, found none. Add them."
            )
        if is_parsed(wanted):
            _check_columns(rows[0][1], wanted, path, place)


def _fixed_choices(wanted: Mapping[str, Any]) -> list[str] | None:
    """Choices that a template of one's own names, the same for all questions."""
    template = wanted.get("template")
    choices = template.get("doc_to_choice") if isinstance(template, Mapping) else None
    return choices if isinstance(choices, list) else None


def _needs_choices(wanted: Mapping[str, Any]) -> bool:
    """Whether a row must bring choices; an answer that is generated is a text otherwise."""
    named = "choices" in wanted.get("columns", {})
    return named or not (wanted["metric"] == "exact_match" or _fixed_choices(wanted))


def _check_columns(row: Row, wanted: Mapping[str, Any], path: Path, place: str) -> None:
    needed = [
        name
        for part, names in columns_of(wanted).items()
        for name in ([names] if isinstance(names, str) else names)
        if part != "choices" or _needs_choices(wanted)
    ]
    if missing := [name for name in needed if name not in row]:
        raise WildmergeError(
            f"{place}: the columns {', '.join(needed)} were expected in {path}, but it has no "
            f"{', '.join(missing)}; its columns are {', '.join(row)}. Say under `columns` which "
            "column is which."
        )


def read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Yield (where it stands, row) of a file.

    Raises:
        WildmergeError: a line is not what the format wants, or not UTF-8.
    """
    readers: dict[str, Callable[[Path], Iterator[tuple[int, Row]]]] = {
        ".jsonl": _jsonl,
        ".csv": _csv,
        ".parquet": _parquet,
        ".txt": _paragraphs,
    }
    try:
        for line, row in readers[path.suffix](path):
            yield f"{path}, {'row' if path.suffix == '.parquet' else 'line'} {line}", row
    except UnicodeDecodeError as error:
        raise WildmergeError(
            f"{path}: text in UTF-8 was expected, found the byte 0x{error.object[error.start]:02x}."
            " Save the file as UTF-8 and run again."
        ) from None


def _jsonl(path: Path) -> Iterator[tuple[int, Row]]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                row = error
            if not isinstance(row, dict):
                raise WildmergeError(
                    f"{path}, line {number}: an object of JSON was expected, found "
                    f"{line.strip()[:60]!r}. Correct the line."
                )
            yield number, row


def _csv(path: Path) -> Iterator[tuple[int, Row]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        for row in table:
            if None in row or None in row.values():
                raise WildmergeError(
                    f"{path}, line {table.line_num}: {len(table.fieldnames or ())} cells were "
                    "expected, as the first line has, found another number. Put a text with a "
                    "comma into quotation marks."
                )
            yield table.line_num, row


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow.parquet as pq

    yield from enumerate(pq.ParquetFile(path).read().to_pylist(), 1)


def _paragraphs(path: Path) -> Iterator[tuple[int, Row]]:
    lines: list[str] = []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                lines.append(line)
            elif lines:
                yield number - len(lines), {"text": "".join(lines).rstrip("\n")}
                lines = []
    if lines:
        yield number - len(lines) + 1, {"text": "".join(lines).rstrip("\n")}


def read_task(path: Path, wanted: Mapping[str, Any]) -> list[Row]:
    """All questions or documents of a file, with the columns that templates read.

    Args:
        path: the file.
        wanted: the entry of its task in suites.yaml.

    Returns:
        Rows with question, choices (texts) and answer (the number of the right choice; its text
        where an answer is generated) or with text; the file's other columns stay beside them.
        Where `is_parsed` says no, the rows as they are.

    Raises:
        WildmergeError: a question has no text, fewer than two choices, the same one twice, or an
            answer that is none of them.
    """
    rows = list(read_rows(path))
    columns = columns_of(wanted)
    if not is_parsed(wanted):
        return [row for _, row in rows]
    for place, row in rows:
        _check_columns(row, wanted, path, place)
    if "text" in columns:
        return [row | {"text": _text(row[columns["text"]], place, "text")} for place, row in rows]
    questions = [
        {"question": _text(row[columns["question"]], place, "question")} for place, row in rows
    ]
    answers = [row[columns["answer"]] for _, row in rows]
    fixed = _fixed_choices(wanted)
    if fixed or _needs_choices(wanted) or columns["choices"] in rows[0][1]:
        choices = [fixed or _choices(row, columns["choices"], place) for place, row in rows]
        numbers = _numbers(answers, choices, [place for place, _ in rows])
        generated = wanted["metric"] == "exact_match"
        parts: list[Row] = [
            {"choices": texts, "answer": texts[number] if generated else number}
            for texts, number in zip(choices, numbers, strict=True)
        ]
    else:
        parts = [
            {"answer": _text(answer, place, "answer")}
            for answer, (place, _) in zip(answers, rows, strict=True)
        ]
    return [
        row | question | part
        for (_, row), question, part in zip(rows, questions, parts, strict=True)
    ]


def _text(value: Any, place: str, what: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value):
        raise WildmergeError(
            f"{place}: the text of a {what} was expected, found {value!r}. Correct it."
        )
    return str(value)


def _choices(row: Row, columns: str | Sequence[str], place: str) -> list[str]:
    """The choices of a question; a question may have fewer than there are columns."""
    if isinstance(columns, str):
        given = row.get(columns)
    else:
        given = [row[name] for name in columns]
        while given and given[-1] in (None, ""):
            given.pop()
    if not isinstance(given, list) or len(given) < 2:
        raise WildmergeError(
            f"{place}: a list of two choices or more was expected, found {given!r}. Correct it, or "
            "name under `columns` the columns that hold a choice each: choices: [a, b, c]."
        )
    texts = [_text(choice, place, "choice") for choice in given]
    if len({*texts}) < len(texts):
        raise WildmergeError(
            f"{place}: choices that differ were expected, found {texts}. Drop one."
        )
    return texts


def _by_text(answer: Any, choices: list[str]) -> int | None:
    return choices.index(answer) if isinstance(answer, str) and answer in choices else None


def _by_letter(answer: Any, choices: list[str]) -> int | None:
    letter = answer.strip() if isinstance(answer, str) else ""
    number = _LETTERS.find(letter) if len(letter) == 1 else -1
    return number if 0 <= number < len(choices) else None


def _by_number(answer: Any, choices: list[str]) -> int | None:
    if isinstance(answer, bool) or not isinstance(answer, int | str):
        return None
    try:
        number = int(answer)
    except ValueError:
        return None
    return number if 0 <= number < len(choices) else None


def _numbers(answers: list[Any], choices: list[list[str]], places: list[str]) -> list[int]:
    """The numbers of the right choices, out of texts, letters or numbers: one way for a file."""
    ways = {"the text of a choice": _by_text, "a letter from A": _by_letter}
    ways["a number from 0"] = _by_number
    read = {
        way: [of(a, c) for a, c in zip(answers, choices, strict=True)] for way, of in ways.items()
    }
    whole = {way: found for way, found in read.items() if None not in found}
    if not whole:
        best = max(read.values(), key=lambda found: sum(n is not None for n in found))
        at = best.index(None)
        raise WildmergeError(
            f"{places[at]}: an answer was expected that is {', '.join(ways)}, in the same way in "
            f"the whole file, found {answers[at]!r} for the choices {choices[at]}. Correct it."
        )
    if len({tuple(found) for found in whole.values()}) > 1:
        raise WildmergeError(
            f"{places[0]}: answers were expected that can be read in one way, but they could be "
            f"{' or '.join(whole)}. Name the right choices by letters, A for the first."
        )
    return [number for number in next(iter(whole.values())) if number is not None]
