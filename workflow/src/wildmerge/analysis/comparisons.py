"""Compare evaluated models question by question: two of them by hand, or all merges of a study."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from wildmerge import WildmergeError

from . import stats
from .digests import check_digests
from .scores import DIGITS, MODEL, left_out, read_items

KEYS = ["base", "suite"]
ALPHA = 1 - stats.LEVEL
COMPARISONS = [
    *MODEL, "reference", "reference_model", "gain", "low", "high", "width_to_unpaired",
    "p", "p_false_discovery", "p_holm", "verdict",
]  # fmt: skip
INTERVALS = [
    *KEYS, "recipe", "n", "reference", "models", "share", "share_low", "share_high",
    "share_above", "share_below", "gain", "questions_low", "questions_high", "draws_low",
    "draws_high", "planned",
]  # fmt: skip
ANSWERS = [
    *KEYS, "recipe", "reference", "models", "share", "share_above", "share_below", "gain",
    "questions_low", "questions_high", "draws_low", "draws_high", "p", "p_holm", "verdict",
    "planned",
]  # fmt: skip


class Outcomes(NamedTuple):
    """Who was right on which question.

    correct: (models, questions) float32; tasks: names; stratum: (questions,) int, the task of each
    question; weight: (questions,) float64, so that `correct @ weight` is the mean over tasks.
    """

    correct: np.ndarray
    tasks: list[str]
    stratum: np.ndarray
    weight: np.ndarray


def read_outcomes(paths: Sequence[str | Path]) -> Outcomes:
    """Read the items files of models that answered the same questions.

    Raises:
        WildmergeError: the questions of two files differ.
    """
    first = read_items(paths[0])
    questions = first.drop_columns("correct")
    correct = np.empty((len(paths), len(first)), np.float32)
    for i, path in enumerate(paths):
        items = read_items(path)
        if not items.drop_columns("correct").equals(questions):
            raise WildmergeError(
                f"Models are compared on the same questions in the same order, but {path} "
                f"({len(items)} questions) and {paths[0]} ({len(first)}) hold others. One of the "
                "two is older than the suite: delete its scores and evaluate it again."
            )
        correct[i] = items["correct"]
    tasks = pc.unique(first["task"]).to_pylist()
    stratum = pc.index_in(first["task"], pa.array(tasks)).to_numpy().astype(int)
    weight = stats.weights(stratum, np.full(len(tasks), 1 / len(tasks)))
    return Outcomes(correct, tasks, stratum, weight)


def _verdict(gain: float, p: float) -> str:
    """What an adjusted p-value allows to say: `above`, `below`, or `not told apart`."""
    if not p < ALPHA:
        return "not told apart"
    return "above" if gain > 0 else "below"


def _interval(replicates: np.ndarray) -> np.ndarray:
    """The interval of replicates over questions; none (NaN) where nothing varies."""
    interval = stats.percentile(replicates)
    return np.where(np.ptp(interval, axis=-1, keepdims=True) > 1e-12, interval, np.nan)


class _Reference:
    """A model that others are compared with, on the questions kept for that."""

    def __init__(self, outcomes: Outcomes, at: int, seed: int) -> None:
        self.outcomes, self.at = outcomes, at
        correct, _, stratum, weight = outcomes
        self.difference = correct - correct[at]
        gain = 100 * (self.difference.astype(np.float64) @ weight)
        self.gain = gain.round(DIGITS)
        self.accuracy = 100 * stats.resample_questions(correct, weight, stratum, seed)
        self.replicates = self.accuracy - self.accuracy[at]


class _Mean(NamedTuple):
    """The mean gain of some models, question by question (questions,) and by resample."""

    difference: np.ndarray
    weight: np.ndarray
    replicates: np.ndarray
    tasks: list[str]


class _Group:
    """The models of one base on one suite and what they are compared with."""

    def __init__(self, rows: pd.DataFrame, pool: int, seed: int) -> None:
        self.rows, self.pool, self.seed = rows.reset_index(drop=True), pool, seed
        outcomes = read_outcomes(list(rows["items"]))
        self.references: dict[str, _Reference] = {}
        base = self.rows.index[self.rows["subset"] == "base"]
        if len(base):
            self.references["base"] = _Reference(outcomes, base[0], seed)
        self.single = (self.rows["n"] == 1) & (self.rows["recipe"] == "identity")
        singles = self.rows.index[self.single]
        if len(singles):
            share = np.full(len(outcomes.tasks), 1 / len(outcomes.tasks))
            correct, tasks, stratum, _ = outcomes
            chosen, judge = stats.best_by_split(correct[singles], stratum, share, seed)
            weight = stats.weights(stratum[judge], share)
            half = Outcomes(correct[:, judge], tasks, stratum[judge], weight)
            self.references["best"] = _Reference(half, singles[chosen], seed)

    def comparisons(self) -> pd.DataFrame:
        """A row a model and reference, as `COMPARISONS` but for what is corrected."""
        frames = [pd.DataFrame(columns=COMPARISONS)]
        for name, reference in self.references.items():
            at = reference.at
            who = self.rows.index[(self.rows["n"] > (0 if name == "base" else 1))]
            interval = _interval(reference.replicates[who])
            # Another resample for the reference than for the model: as if on other questions.
            shuffle = np.random.default_rng(self.seed).permutation(reference.accuracy.shape[1])
            apart = reference.accuracy[who] - reference.accuracy[at][shuffle]
            found = self.rows.loc[who, MODEL].assign(
                reference=name,
                reference_model=self.rows.loc[at, "subset"],
                gain=reference.gain[who],
                low=interval[:, 0],
                high=interval[:, 1],
                width_to_unpaired=np.diff(interval)[:, 0] / np.diff(_interval(apart))[:, 0],
                p=stats.paired_test(reference.difference[who], reference.outcomes.weight),
            )
            frames.append(found)
        return pd.concat([frame for frame in frames if len(frame)] or frames[:1])

    def cells(self, keys: list[str]) -> Iterator[tuple[Any, str, pd.DataFrame]]:
        """Yield (key, reference's name, rows) of sets of merges; n = 1 holds the checkpoints."""
        rows = self.rows[self.rows["recipe"] != "identity"]
        if "n" in keys:
            rows = pd.concat([self.rows[self.single], rows])
        for key, cell in rows.groupby(keys, sort=False):
            for name in self.references:
                yield key, name, cell

    def mean(self, cell: pd.DataFrame, name: str) -> _Mean:
        """The mean over some models of their difference to a reference."""
        reference = self.references[name]
        difference = reference.difference[cell.index].mean(0)
        replicates = reference.replicates[cell.index].mean(0)
        outcomes = reference.outcomes
        return _Mean(difference, outcomes.weight, replicates, outcomes.tasks)

    def summary(self, cell: pd.DataFrame, name: str) -> dict[str, Any]:
        """The mean gain of some models over a reference, with its intervals."""
        reference = self.references[name]
        gains = reference.gain[cell.index]
        low, high = _interval(reference.replicates[cell.index].mean(0))
        found = {"models": len(cell), "share": 100 * (gains > 0).mean(), "gain": gains.mean()}
        found |= {"questions_low": low, "questions_high": high}
        if not (cell["draw"] > 0).all():
            return found  # named groups and single checkpoints are no sample of anything
        sizes = cell["n"].unique()
        parts = [gains[cell["n"] == n] for n in sizes]
        subsets = [math.comb(self.pool, n) for n in sizes]
        interval = stats.mean_over_draws(parts, subsets, self.seed)
        if interval and interval[1] - interval[0] > 1e-12:
            found["draws_low"], found["draws_high"] = interval
        if len(sizes) == 1:
            interval = stats.share_over_draws((gains > 0).sum(), len(gains), subsets[0])
            if interval:
                found["share_low"], found["share_high"] = 100 * interval[0], 100 * interval[1]
        return found


def compare_study(
    plan: Sequence[Mapping[str, Any]], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Compare every model of a study with its base and with the best checkpoint.

    Reference `base` is the base; `best` is the best checkpoint, chosen on one half of the
    questions and compared with on the other half. Models that differ on no question have no
    interval.

    Args:
        plan: one dict an evaluated model and suite, as for `scores.read`, with the path items;
            models that are `scores.left_out` are in no frame.
        seed: of the resampling.

    Returns:
        Three frames, gains in percentage points, shares in percent:
        `COMPARISONS`, a row a model and reference: the gain, its 95 % interval over questions and
        the width of that interval relative to an unpaired one, the p-value of `stats.paired_test`
        alone, and adjusted by Benjamini-Hochberg and by Holm for all merges of the study against
        that reference (single checkpoints are a family of their own), and the verdict at a false
        discovery rate of 5 %;
        `INTERVALS`, a row a base, suite, recipe, n and reference: the share above the reference
        with its interval over draws, the shares significantly above and below, the mean gain with
        its intervals over questions and over draws, of how many planned models;
        `ANSWERS`, the same over all merges of a recipe, with the test of their mean gain, adjusted
        by Holm for all rows with that reference. Base `average` is the mean over bases.

    Raises:
        WildmergeError: the questions of two files differ, or two files are of different weights
            under one name.
    """
    check_digests(row.get(key) for row in plan for key in ("scores", "summary"))
    frame = pd.DataFrame(plan)
    frame["members"] = frame["members"].map(";".join)
    pools = frame.groupby("base")["pool"].max().to_dict()
    cells_of = frame[[*KEYS, "recipe", "n"]].itertuples(index=False, name=None)
    planned = Counter(key for cell in cells_of for key in (cell, cell[:-1]))
    frame = frame[[not why for why in left_out(plan)]]
    models: list[pd.DataFrame] = []
    cells: list[dict[str, Any]] = []
    means: list[dict[str, Any]] = []
    shared: dict[tuple[str, str, str], list[tuple[int, _Mean]]] = {}
    for (base, suite), rows in frame.groupby(KEYS, sort=False):
        group = _Group(rows, pools[base], seed)
        models.append(group.comparisons())
        key = {"base": base, "suite": suite}
        for (recipe, n), name, cell in group.cells(["recipe", "n"]):
            found = group.summary(cell, name) | {"planned": planned[base, suite, recipe, n]}
            cells.append(key | {"recipe": recipe, "n": n, "reference": name} | found)
        for (recipe,), name, cell in group.cells(["recipe"]):
            mean = group.mean(cell, name)
            shared.setdefault((suite, recipe, name), []).append((len(means), mean))
            p = stats.paired_test(mean.difference, mean.weight)[0]
            found = group.summary(cell, name) | {"p": p, "planned": planned[base, suite, recipe]}
            means.append(key | {"recipe": recipe, "reference": name} | found)
    # A frame without rows, of a base with all missing, has no types either.
    filled = [frame for frame in models if len(frame)] or models[:1]
    comparisons = _tested(pd.concat(filled).reset_index(drop=True))
    intervals = _with_shares(pd.DataFrame(cells), comparisons, ["recipe", "n"])
    answers = _with_shares(pd.DataFrame(means), comparisons, ["recipe"])
    if len(answers):
        averages = _averages(answers, shared, frame["base"].nunique())
        answers = pd.concat([answers, averages], ignore_index=True)
        for _, family in answers.groupby("reference"):
            answers.loc[family.index, "p_holm"] = stats.holm(family["p"].to_numpy())
        pairs = zip(answers["gain"], answers["p_holm"], strict=True)
        answers["verdict"] = [_verdict(gain, p) for gain, p in pairs]
    return comparisons, intervals.reindex(columns=INTERVALS), answers.reindex(columns=ANSWERS)


def _tested(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Add the corrected p-values and the verdicts; merges and single checkpoints are families."""
    comparisons = comparisons.reindex(columns=COMPARISONS)
    comparisons[["p_false_discovery", "p_holm"]] = np.nan
    for _, family in comparisons.groupby(["reference", comparisons["recipe"] == "identity"]):
        p = family["p"].to_numpy()
        comparisons.loc[family.index, "p_false_discovery"] = stats.false_discovery(p)
        comparisons.loc[family.index, "p_holm"] = stats.holm(p)
    pairs = zip(comparisons["gain"], comparisons["p_false_discovery"], strict=True)
    return comparisons.assign(verdict=[_verdict(gain, p) for gain, p in pairs])


def _averages(
    answers: pd.DataFrame,
    shared: Mapping[tuple[str, str, str], list[tuple[int, _Mean]]],
    bases: int,
) -> pd.DataFrame:
    """The mean over bases of each recipe, where all have the same questions and planned merges."""
    found = []
    for (suite, recipe, name), group in shared.items():
        index, means = zip(*group, strict=True)
        rows, first = answers.loc[list(index)], means[0]
        same = all(m.tasks == first.tasks and np.array_equal(m.weight, first.weight) for m in means)
        if bases == 1 or len(group) < bases or not same or rows["planned"].nunique() > 1:
            continue
        low, high = _interval(np.mean([m.replicates for m in means], axis=0))
        mean = rows[["share", "share_above", "share_below", "gain"]].mean().to_dict()
        interval = {"questions_low": low, "questions_high": high}
        p = stats.paired_test(np.mean([m.difference for m in means], axis=0), first.weight)[0]
        key = {"base": "average", "suite": suite, "recipe": recipe, "reference": name}
        found.append(key | mean | interval | {"p": p} | rows[["models", "planned"]].sum().to_dict())
    return pd.DataFrame(found)


def _with_shares(cells: pd.DataFrame, comparisons: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Add the shares of models significantly above and below to cells of models."""
    if cells.empty:
        return cells
    keys = [*KEYS, *keys, "reference"]
    tests = comparisons if "n" in keys else comparisons[comparisons["recipe"] != "identity"]
    groups = [tests[key] for key in keys]
    for column, word in (("share_above", "above"), ("share_below", "below")):
        share = (100 * (tests["verdict"] == word)).groupby(groups).mean()
        cells = cells.merge(share.rename(column).reset_index(), "left", keys)
    return cells


def compare_two(path_a: str | Path, path_b: str | Path, seed: int = 0) -> pd.DataFrame:
    """Compare two evaluated models, task by task and on the mean over tasks.

    Args:
        path_a: items.parquet of one model, results/scores/.../*.items.parquet.
        path_b: that of the other model, on the same suite.
        seed: of the resampling.

    Returns:
        One row a task and a last one, `mean over tasks`: questions, a and b (percent right),
        difference a - b (points) with its 95 % interval over questions (paired bootstrap) and the
        p-value of `stats.paired_test`; for tasks it is adjusted by Holm for their number.

    Raises:
        WildmergeError: a file is not there, or the questions of the two differ.
    """
    for path in (path_a, path_b):
        if not Path(path).exists():
            raise WildmergeError(
                f"The outcomes of an evaluated model were expected in {path}, found no file. Name "
                "two files results/scores/.../SUITE.items.parquet of the same suite."
            )
    correct, tasks, stratum, weight = read_outcomes([path_a, path_b])
    rows = []
    for i, task in enumerate([*tasks, "mean over tasks"]):
        own = stratum == i if i < len(tasks) else np.full(len(stratum), True)
        part = weight[own] / weight[own].sum()
        a, b = correct[:, own].astype(np.float64) @ part
        replicates = stats.resample_questions(correct[:, own], part, stratum[own], seed)
        low, high = 100 * _interval(replicates[0] - replicates[1])
        p = stats.paired_test(correct[0, own] - correct[1, own], part)[0]
        rows.append(
            {"task": task, "questions": int(own.sum()), "a": 100 * a, "b": 100 * b,
             "difference": 100 * (a - b), "low": low, "high": high, "p": p}
        )  # fmt: skip
    table = pd.DataFrame(rows)
    table.loc[table.index[:-1], "p"] = stats.holm(table["p"].to_numpy()[:-1])
    return table


def report_two(path_a: str | Path, path_b: str | Path, seed: int = 0) -> str:
    """The comparison of two evaluated models in words and columns, for a terminal.

    Args, errors: as for `compare_two`.
    """
    table = compare_two(path_a, path_b, seed)
    lines = [
        f"a  {path_a}",
        f"b  {path_b}",
        "",
        f"{'task':24}{'questions':>10}{'a, %':>8}{'b, %':>8}{'a - b':>8}  95 % interval      p",
    ]
    for row in table.itertuples():
        interval = "–" if math.isnan(row.low) else f"[{row.low:+.2f}, {row.high:+.2f}]"
        lines.append(
            f"{row.task:24}{row.questions:10}{row.a:8.2f}{row.b:8.2f}{row.difference:+8.2f}"
            f"  {interval:17}{row.p:7.2g}"
        )
    last = table.iloc[-1]
    word = {"above": "a is better", "below": "b is better"}.get(_verdict(last.difference, last.p))
    lines += [
        "",
        f"{word or 'The two are not told apart'} on the mean over tasks (paired test, 5 %). "
        "Intervals: paired bootstrap over questions within tasks; p-values of tasks: Holm.",
    ]
    return "\n".join(lines)
