"""Score and summary files into tidy tables: one row a model and task, one row a merge."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from wildmerge import WildmergeError
from wildmerge.evaluation import COMPARED_OUTCOMES, NEGATIVE_BITS
from wildmerge.files import read_json

from .digests import check_digests

DIGITS = 9  # of a gain in points; beyond is rounding, and equal models gain exactly 0
MODEL = ["base", "subset", "n", "draw", "members", "recipe", "suite"]
SCORES = [*MODEL, "task", "metric", "value", "stderr", "questions"]
MERGES = [
    *MODEL,
    "accuracy",
    "base_accuracy",
    "best_accuracy",
    "best_model",
    "gain",
    "gain_over_best",
    "norm",
    "norm_rounded",
    "merge_seconds",
    "evaluate_seconds",
    "diverged",
    "left_out",
]

TEXT = [
    "base", "subset", "members", "recipe", "suite", "best_model", "task", "metric", "reference",
    "reference_model", "verdict", "diverged", "left_out", "contrast", "a", "b", "population",
    "over_members", "outcome",
]  # fmt: skip


def where(row: Mapping[str, Any]) -> str:
    """Name an evaluated model and its suite in messages: base/subset/recipe, suite."""
    return f"{row['base']}/{row['subset']}/{row['recipe']}, suite {row['suite']}"


def _check(score: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    for key in ("base", "subset", "recipe", "suite"):
        if score[key] != row[key]:
            raise WildmergeError(
                f"{row['scores']} should hold the scores of {where(row)}, but its {key} is "
                f"{score[key]!r}. The file was moved or edited by hand: delete it and run again."
            )
    for task, entry in score["tasks"].items():
        value = entry["value"]
        # Bits a byte come with a minus; NaN fails both.
        low, high = (-math.inf, 0) if entry["metric"] == NEGATIVE_BITS else (0, 1)
        if not isinstance(value, int | float) or not low <= value <= high or math.isinf(value):
            raise WildmergeError(
                f"The {entry['metric']} of task {task} should be a number from {low} to {high}, "
                f"but is {value!r} in {row['scores']} ({where(row)}). A merge with broken weights "
                "gives such scores: look at its log, then delete the score file and run again."
            )
    mean = math.fsum(entry["value"] for entry in score["tasks"].values()) / len(score["tasks"])
    if not math.isclose(score["accuracy"], mean, abs_tol=1e-6):
        raise WildmergeError(
            f"The accuracy of {where(row)} should be the mean of its tasks, {mean:.6f}, but "
            f"{row['scores']} says {score['accuracy']}. Delete the file and run again."
        )


def _is_measured(row: Mapping[str, Any]) -> bool:
    """Whether a planned model has its outcome, and the study does not say that it is missing."""
    files = [Path(row[kind]) for kind in ("scores", "items") if kind in row]
    return not row.get("missing") and all(file.exists() for file in files)


def left_out(plan: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why each planned model counts in no table and no comparison; "" where it does.

    Methods are compared on the same subsets: the merges of a subset count where every method has
    its own there, of all methods that have any merge of that base on that suite.

    Args:
        plan: as for `read`.
    """
    measured = [_is_measured(row) for row in plan]
    having: dict[tuple[str, str], set[str]] = {}
    for row, there in zip(plan, measured, strict=True):
        if there:
            having.setdefault((row["base"], row["suite"]), set()).add(row["recipe"])
    lacking: dict[tuple[str, str, str], list[str]] = {}
    for row, there in zip(plan, measured, strict=True):
        key = row["base"], row["suite"], row["subset"]
        if row["recipe"] != "identity" and not there and row["recipe"] in having.get(key[:2], ()):
            lacking.setdefault(key, []).append(row["recipe"])
    found = []
    for row, there in zip(plan, measured, strict=True):
        if there:
            lacks = lacking.get((row["base"], row["suite"], row["subset"]), [])
            found.append(f"its subset lacks {', '.join(lacks)}" if lacks else "")
        else:
            found.append(row.get("missing") or "not measured")
    return found


def read(plan: Sequence[Mapping[str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the planned score files and merge summaries into the two tidy tables of a study.

    Args:
        plan: one dict an evaluated model and suite, with base, subset, n, draw (0 where nothing was
            drawn), members (names), recipe, suite, and the paths scores and summary (None where no
            merge is made), and `missing`, why the study goes on without it, if it does.

    Returns:
        The frames with columns `SCORES` (value a fraction) and `MERGES` (accuracies are fractions,
        the mean over tasks; gains are percentage points; norms are L2; times seconds; diverged is
        the tasks on which a model's log-likelihoods overflow, which count as wrong). What is
        `left_out` has a row without numbers in the second and none in the first.

    Raises:
        WildmergeError: a score is not finite, does not belong to its row, was taken on other tasks
            or questions than its base's, or of other weights than another file has under that name.
    """
    task_rows: list[dict[str, Any]] = []
    merge_rows: list[dict[str, Any]] = []
    suites: dict[tuple[str, str], tuple[Mapping[str, Any], dict[str, int]]] = {}
    for row, why in zip(plan, left_out(plan), strict=True):
        model = {key: row[key] for key in MODEL} | {"members": ";".join(row["members"])}
        merge = model | {"accuracy": None, "evaluate_seconds": None, "diverged": ""}
        merge |= {"norm": 0.0 if row["subset"] == "base" else None, "left_out": why}
        merge_rows.append(merge)
        if not _is_measured(row):
            continue
        if row.get("summary") and Path(row["summary"]).exists():
            summary = read_json(row["summary"])
            merge["merge_seconds"] = summary["seconds"] if row["n"] > 1 else None
            if not why:
                merge |= {"norm": summary["norm"], "norm_rounded": summary.get("norm_rounded")}
        score = read_json(row["scores"])
        _check(score, row)
        asked = {task: entry["questions"] for task, entry in score["tasks"].items()}
        first, expected = suites.setdefault((row["base"], row["suite"]), (row, asked))
        if asked != expected:
            raise WildmergeError(
                f"Models of one base are compared on the same questions, but {where(row)} was "
                f"asked {asked} (task: questions) and {where(first)} {expected}. One of the two is "
                "older than the suite: delete its score file and run again."
            )
        merge["evaluate_seconds"] = score["seconds"]
        if why:
            continue
        diverged = [task for task, entry in score["tasks"].items() if entry.get("diverged")]
        merge["accuracy"] = score["accuracy"]
        merge["diverged"] = ";".join(diverged)
        for task, entry in score["tasks"].items():
            keys = ("metric", "value", "stderr", "questions")
            task_rows.append(model | {"task": task} | {key: entry[key] for key in keys})
    check_digests(row.get(key) for row in plan for key in ("scores", "summary"))
    scores = pd.DataFrame(task_rows, columns=SCORES)
    merges = pd.DataFrame(merge_rows, columns=MERGES)
    return scores, with_gains(merges)


def with_gains(merges: pd.DataFrame) -> pd.DataFrame:
    """Fill base_accuracy, best_accuracy, best_model, gain and gain_over_best (Tables 1-3).

    The best checkpoint is the single one with the highest mean over tasks, chosen on the very
    questions it is compared on, as in the paper's Table 2; ties go to the first by name.
    """
    merges = merges.copy()
    numbers = [c for c in MERGES[MERGES.index("accuracy") :] if c not in TEXT]
    merges[numbers] = merges[numbers].astype(float)
    merges["best_model"] = merges["best_model"].astype(object)
    for _, group in merges.groupby(["base", "suite"], sort=False):
        base = group.loc[group["subset"] == "base", "accuracy"].dropna()
        if len(base):
            merges.loc[group.index, "base_accuracy"] = base.iloc[0]
        # A single checkpoint is scored as it is; a merge of one expert is not a checkpoint.
        single = group[(group["n"] == 1) & (group["recipe"] == "identity")]
        single = single.dropna(subset="accuracy").sort_values("subset")
        if len(single):
            best = single.loc[single["accuracy"].idxmax()]
            merges.loc[group.index, "best_accuracy"] = best["accuracy"]
            merges.loc[group.index, "best_model"] = best["subset"]
    for gain, reference in (("gain", "base_accuracy"), ("gain_over_best", "best_accuracy")):
        merges[gain] = (100 * (merges["accuracy"] - merges[reference])).round(DIGITS)
    return merges[MERGES]


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a CSV of a study (scores, merges, comparisons, ...) with the types it had."""
    frame = pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), keep_default_na=False, na_values=[""])
    empty = ("members", "diverged", "left_out", "contrast", "over_members")
    return frame.fillna(dict.fromkeys(empty, ""))


def sweep(
    merges: pd.DataFrame,
    comparisons: pd.DataFrame,
    recipes: Mapping[str, Mapping[str, Any]],
    name: str,
) -> pd.DataFrame:
    """The points of a recipe's sweep: its rows of merges.csv, a column a parameter, an interval.

    Args:
        merges: the study's merges.csv.
        comparisons: its comparisons.csv.
        recipes: the study's recipes by name, with `parameters`, and `of` for the points of a sweep.
        name: the recipe that is swept.

    Returns:
        The rows of the recipe and of all that vary it, with the parameters and `low` and `high`,
        the gain's 95 % interval over questions in points; sorted by the parameters.

    Raises:
        WildmergeError: the study has no point of that sweep.
    """
    points = [recipe for recipe in recipes if name in (recipe, recipes[recipe].get("of"))]
    rows = merges[merges["recipe"].isin(points)]
    if rows.empty:
        raise WildmergeError(
            f"A figure of a sweep of recipe {name} needs merges by it, but the study has none: add "
            "the sweep to the study's YAML or take the figure out of its `figures`."
        )
    parameters = [recipes[recipe]["parameters"] for recipe in rows["recipe"]]
    names = list(parameters[0])
    rows = rows.assign(**{key: [p[key] for p in parameters] for key in names})
    against_base = comparisons[comparisons["reference"] == "base"]
    rows = rows.merge(against_base[[*MODEL, "low", "high"]], "left", MODEL)
    return rows.sort_values(names)


def read_items(path: str | Path) -> pa.Table:
    """Read who was right on which question; columns `COMPARED_OUTCOMES`, a row a question.

    Raises:
        WildmergeError: the file is no Parquet, has other columns, or holds scores that are no
            numbers.
    """
    wanted = (
        "every question's outcome was expected (a file results/scores/.../SUITE.items.parquet "
        f"with the columns {', '.join(COMPARED_OUTCOMES.names)})"
    )
    try:
        columns = pyarrow.parquet.read_schema(path).names
        names = COMPARED_OUTCOMES.names
        wants = [name for name in names if name != "cluster"]
        if missing := [name for name in wants if name not in columns]:
            raise WildmergeError(
                f"{path}: {wanted}, found the columns {', '.join(columns)}, without "
                f"{', '.join(missing)}. Name the file of outcomes."
            )
        items = pyarrow.parquet.read_table(path, columns=[n for n in names if n in columns])
        if "cluster" not in columns:  # of release 0.1: each question stands alone
            items = items.add_column(3, "cluster", pa.array(np.arange(len(items)), pa.int32()))
        items = items.cast(COMPARED_OUTCOMES)
    except (pa.ArrowInvalid, IsADirectoryError) as error:
        raise WildmergeError(
            f"{path}: {wanted}, found something else ({' '.join(str(error).split())}). Name the "
            "file of outcomes."
        ) from error
    wrong = int((~np.isfinite(items["correct"].to_numpy())).sum())
    if wrong:
        raise WildmergeError(
            f"Every question should be scored by a number, but {path} holds {wrong} that are not. "
            "A merge with broken weights gives such scores: look at its log, then delete the file "
            "and run again."
        )
    return items
