"""Who was right on which question: of files of models, of a whole study, and in one file."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wildmerge import WildmergeError
from wildmerge.files import atomic_file

from .digests import check_digests
from .questions import Questions
from .scores import MODEL, left_out, read_items

NAMES = ["task", "member", "doc", "cluster"]  # of a question
FACTS = b"wildmerge"  # key of the file's metadata


class Outcomes(NamedTuple):
    """The outcomes of models that answered the same questions.

    correct: (models, questions) float32; questions; names: a row a question, columns `NAMES`.
    """

    correct: np.ndarray
    questions: Questions
    names: pa.Table

    def sums(self, rows: Any = slice(None)) -> np.ndarray:
        """Accuracies by cluster, (models, clusters)."""
        return self.questions.sums(self.correct[rows])


@dataclass(frozen=True)
class Facts:
    """What a study declares of its questions before it runs.

    Attributes:
        margin: what counts as equal, points on either side.
        population: what its headline is about: `questions`, `draws`, `both` or `checkpoints`.
        contrasts: planned comparisons: name, and the recipes of either side.
    """

    margin: float = 0.5
    population: str = "both"
    contrasts: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class StudyOutcomes:
    """The outcomes of all models of a study.

    Attributes:
        facts: what the study declares.
        plan: a row a planned model, the columns `MODEL` and `pool`, the number of checkpoints that
            its base's subsets are drawn from.
        groups: (base, suite) -> the rows of the plan that have outcomes, and these.
    """

    facts: Facts
    plan: pd.DataFrame
    groups: Mapping[tuple[str, str], tuple[pd.DataFrame, Outcomes]] = field(repr=False)

    def __iter__(self) -> Iterator[tuple[str, str, pd.DataFrame, Outcomes]]:
        """Base, suite, rows and outcomes."""
        for (base, suite), (rows, outcomes) in self.groups.items():
            yield base, suite, rows, outcomes


def outcomes_of(names: pa.Table, correct: np.ndarray) -> Outcomes:
    """Outcomes on named questions. correct: (models, questions)."""
    tasks = pc.unique(names["task"]).to_pylist()
    stratum = pc.index_in(names["task"], pa.array(tasks)).to_numpy().astype(int)
    cluster = names["cluster"].to_numpy()
    return Outcomes(correct, Questions.of(tasks, stratum, cluster), names)


def read_outcomes(paths: Sequence[str | Path]) -> Outcomes:
    """Read the items files of models that answered the same questions.

    Raises:
        WildmergeError: the questions of two files differ.
    """
    first = read_items(paths[0])
    names = first.select(NAMES)
    correct = np.empty((len(paths), len(first)), np.float32)
    for i, path in enumerate(paths):
        items = read_items(path)
        if not items.select(NAMES).equals(names):
            raise WildmergeError(
                f"Models are compared on the same questions in the same order, but {path} "
                f"({len(items)} questions) and {paths[0]} ({len(first)}) hold others. One of the "
                "two is older than the suite: delete its scores and evaluate it again."
            )
        correct[i] = items["correct"]
    return outcomes_of(names, correct)


def gather(plan: Sequence[Mapping[str, Any]], facts: Facts | None = None) -> StudyOutcomes:
    """Read the outcomes of a study's models.

    Args:
        plan: one dict an evaluated model and suite, as for `scores.read`, with the path items;
            models that are `scores.left_out` are in no frame.
        facts: what the study declares.

    Raises:
        WildmergeError: the questions of two files differ, or two files are of different weights
            under one name.
    """
    check_digests(row.get(key) for row in plan for key in ("scores", "summary"))
    frame = pd.DataFrame(plan)
    frame["members"] = frame["members"].map(";".join)
    there = [not why for why in left_out(plan)]
    groups = {}
    for (base, suite), rows in frame[there].groupby(["base", "suite"], sort=False):
        own = rows.reset_index(drop=True)
        outcomes = read_outcomes(list(own["items"]))
        groups[base, suite] = own[[*MODEL, "pool"]], outcomes
    return StudyOutcomes(facts or Facts(), frame[[*MODEL, "pool"]], groups)


def _column(row: Any) -> str:
    return f"{row.subset}/{row.recipe}"


def write_outcomes(study: StudyOutcomes, path: str | Path) -> None:
    """Write a study's outcomes into one Parquet file.

    A row a base, suite and question; columns base, suite, `NAMES`, and one a model,
    `subset/recipe`: whether it was right (its metric, where that is no yes or no), null where it
    was not asked. What the study declares and plans stands in the file's metadata under the key
    `wildmerge`, as JSON.
    """
    columns = list(dict.fromkeys(_column(row) for row in study.plan.itertuples()))
    facts = {
        "margin": study.facts.margin,
        "population": study.facts.population,
        "contrasts": list(study.facts.contrasts),
        "plan": study.plan.to_dict("list"),
    }
    names = [(name, pa.dictionary(pa.int16(), pa.string())) for name in ("base", "suite", "task")]
    names += [("member", pa.dictionary(pa.int16(), pa.string()))]
    names += [("doc", pa.int32()), ("cluster", pa.int32())]
    plain = all(np.isin(outcomes.correct, (0, 1)).all() for *_, outcomes in study)
    kind = pa.bool_() if plain else pa.float32()
    schema = pa.schema([*names, *((name, kind) for name in columns)])
    schema = schema.with_metadata({FACTS: json.dumps(facts).encode()})
    with atomic_file(path) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for base, suite, rows, outcomes in study:
            count = len(outcomes.names)
            table = {"base": pa.array([base] * count), "suite": pa.array([suite] * count)}
            table |= {name: outcomes.names[name] for name in NAMES}
            right = dict(zip(map(_column, rows.itertuples()), outcomes.correct, strict=True))
            for name in columns:
                known = name in right
                table[name] = pa.array(right[name]) if known else pa.nulls(count, pa.float32())
            writer.write_table(pa.table(table).cast(schema), row_group_size=max(count, 1))


def read_study(path: str | Path) -> StudyOutcomes:
    """Read the file that `write_outcomes` wrote.

    Raises:
        WildmergeError: it is no such file.
    """
    try:
        file = pq.ParquetFile(path)
        facts = json.loads((file.schema_arrow.metadata or {})[FACTS])
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise WildmergeError(
            f"{path}: the outcomes of a study were expected (results/studies/STUDY/"
            f"outcomes.parquet), found something else ({' '.join(str(error).split())}). Name that "
            "file."
        ) from error
    plan = pd.DataFrame(facts.pop("plan"))
    groups = {}
    for number in range(file.num_row_groups):
        table = file.read_row_group(number)
        base, suite = table["base"][0].as_py(), table["suite"][0].as_py()
        rows = plan[(plan["base"] == base) & (plan["suite"] == suite)]
        there = [table[_column(row)].null_count == 0 for row in rows.itertuples()]
        rows = rows[there].reset_index(drop=True)
        correct = [table[_column(row)].to_numpy().astype(np.float32) for row in rows.itertuples()]
        names = table.select(NAMES)
        for place, name in enumerate(NAMES[:2]):
            names = names.set_column(place, name, names[name].cast(pa.string()))
        groups[base, suite] = rows, outcomes_of(names, np.array(correct))
    return StudyOutcomes(Facts(**facts), plan, groups)
