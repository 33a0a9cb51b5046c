"""The figures and tables that exist, and what each one declares: its inputs and its caption.

A figure or table is one module of `wildmerge.reporting.figures` or `.tables`. Here its declarations
are read from its text, without importing it: building the DAG must not import matplotlib.
"""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from wildmerge import WildmergeError

from . import paths

KINDS = ("figures", "tables")
# What a figure or table may ask for. The CSV files of a study, by their names ...
CSV = (
    *("scores", "merges", "comparisons", "intervals", "answers", "methods", "best"),
    "calibrated",
)
# ... the Gram matrices of a base's task vectors, one file a base of the study ...
SIMILARITY = "similarity"
# ... and the paper's own numbers: `published/table1` is config/published/table1.csv.
PUBLISHED = "published/"

_MODULES = Path(__file__).parents[1] / "reporting"


@dataclass(frozen=True)
class Declaration:
    """What a figure or table says of itself.

    Attributes:
        inputs: names of what it is made from, each one of `CSV`, `SIMILARITY`, or `PUBLISHED` and
            the name of a file.
        caption: what is said below it, plain text in one paragraph.
    """

    inputs: tuple[str, ...]
    caption: str


def names(kind: str) -> list[str]:
    """The figures or tables that exist, sorted.

    Args:
        kind: one of `KINDS`.
    """
    return sorted(path.stem for path in (_MODULES / kind).glob("[!_]*.py"))


def declaration(kind: str, name: str, where: str = "The figure or table") -> Declaration:
    """What a figure or table declares.

    Args:
        kind: one of `KINDS`.
        name: the name of its module.
        where: who asks for it, for messages: the path of a study.

    Raises:
        WildmergeError: there is no such module, or it declares `INPUTS` or `CAPTION` wrongly.
    """
    path = _MODULES / kind / f"{name}.py"
    if name not in names(kind):
        raise WildmergeError(
            f"{where}, {kind}: one of the {kind} that exist was expected, found {name!r}. Known "
            f"are {', '.join(names(kind))}. Correct the name, or write the module {path}."
        )
    return _declared_in(path)


@cache
def _declared_in(path: Path) -> Declaration:
    return read_declaration(path.read_text(encoding="utf-8"), str(path))


def read_declaration(source: str, where: str) -> Declaration:
    """Read `INPUTS` and `CAPTION` from the text of a module.

    Args:
        source: the module's text.
        where: its path, for messages.

    Raises:
        WildmergeError: one of the two is missing, is no literal, or has another form or an unknown
            name.
    """
    inputs, caption = (_literal(source, name, where) for name in ("INPUTS", "CAPTION"))
    if not isinstance(inputs, tuple) or not inputs:
        raise WildmergeError(
            f'{where}: INPUTS was expected to be a tuple of names such as ("merges",), found '
            f"{inputs!r}. Correct it."
        )
    for name in inputs:
        known = isinstance(name, str) and (
            name in (*CSV, SIMILARITY) or (name.startswith(PUBLISHED) and name != PUBLISHED)
        )
        if not known:
            raise WildmergeError(
                f"{where}: names of inputs were expected in INPUTS, found {name!r}. Known are "
                f"{', '.join((*CSV, SIMILARITY))}, and {PUBLISHED}NAME for a file "
                "config/published/NAME.csv. Correct it."
            )
    if not isinstance(caption, str) or not caption.strip():
        raise WildmergeError(
            f"{where}: CAPTION was expected to be a text, found {caption!r}. Correct it."
        )
    return Declaration(inputs, " ".join(caption.split()))


def asks_for(study: dict[str, Any], name: str) -> bool:
    """Whether any figure or table of a study is made from the input of this name."""
    return any(name in declaration(kind, drawn).inputs for kind in KINDS for drawn in study[kind])


def input_files(
    kind: str, name: str, study: str, bases: list[str], home: Path
) -> dict[str, list[str]]:
    """The files that a figure or table of a study is made from.

    Args:
        kind: one of `KINDS`.
        name: the figure's or table's.
        study: the study's name.
        bases: the study's bases.
        home: the project's folder, for the paper's own numbers.

    Returns:
        One list of paths for each of `CSV` that is asked for, under its name; one path a base,
        in the bases' order, under `similarity`; the paper's tables under `published`.
    """
    found: dict[str, list[str]] = {}
    for entry in declaration(kind, name).inputs:
        if entry == SIMILARITY:
            found[SIMILARITY] = [paths.similarity(base) for base in bases]
        elif entry in CSV:
            found[entry] = [paths.study(study, f"{entry}.csv")]
        else:
            found.setdefault("published", []).append(str(home / "config" / f"{entry}.csv"))
    return found


def _literal(source: str, name: str, where: str) -> object:
    """The value that a module's text gives to a name at its top level, where it is a literal."""
    for node in ast.parse(source, where).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in node.targets
        ):
            try:
                return ast.literal_eval(node.value)
            except ValueError:
                break
    raise WildmergeError(
        f"{where}: a line `{name} = ...` with a plain literal was expected at the top of the "
        "module, where it can be read without importing it; none was found. Add it."
    )
