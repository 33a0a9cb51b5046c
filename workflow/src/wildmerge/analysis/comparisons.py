"""Compare evaluated models question by question: two of them by hand, or all merges of a study."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats as distributions

from wildmerge import WildmergeError

from . import methods, stats
from .best import Experts, MeanOverBest, OverBest, listed, ranked
from .outcomes import Facts, Outcomes, StudyOutcomes, read_outcomes
from .populations import (
    Merges,
    Spread,
    ends,
    headline,
    share_over_questions,
    true_spread,
    weakened,
    widened,
)
from .questions import LEVEL, Moments, least_p, paired_test, smallest_seen
from .scores import DIGITS, MODEL

KEYS = ["base", "suite"]
ALPHA = 1 - LEVEL
BEST = ("own", "best")  # references that are the best of several checkpoints
POPULATION_ENDS = [
    f"{population}_{end}"
    for population in ("questions", "draws", "both", "checkpoints")
    for end in ("low", "high")
]
COMPARISONS = [
    *MODEL, "reference", "reference_model", "gain", "gain_corrected", "low", "high",
    "width_to_unpaired", "differing", "se", "se_clustered", "mde", "p_least", "p",
    "p_false_discovery", "p_holm", "p_equal", "p_equal_holm", "verdict",
]  # fmt: skip
_SUMMARY = [
    "reference", "models", "share", "share_low", "share_high", "share_questions_low",
    "share_questions_high", "share_null_low", "share_null_high", "share_above", "share_below",
    "true_sd", "share_true", "gain", "gain_corrected", *POPULATION_ENDS, "planned",
]  # fmt: skip
INTERVALS = [*KEYS, "recipe", "n", *_SUMMARY]
ANSWERS = [
    *KEYS, "recipe", *_SUMMARY, "bases_low", "bases_high", "mde", "population", "p", "p_holm",
    "p_equal", "p_equal_holm", "verdict",
]  # fmt: skip
RANKED = [
    *MODEL, "rank", "gain", "gain_corrected", "low", "high", "contender", "over_members",
]  # fmt: skip
FRAMES = {
    "comparisons": COMPARISONS,
    "intervals": INTERVALS,
    "answers": ANSWERS,
    "methods": methods.METHODS,
    "best": RANKED,
}


class _Against(NamedTuple):
    """Models' differences to a reference, a row a model of `who`.

    who: rows of the models; gain: points; replicates: (rows, resamples) points; sums: (rows,
    clusters), None for the best of several checkpoints, which `over` describes, those `among`
    (checkpoints, rows); null: (rows, resamples) gains without any true one, points, where that
    makes sense.
    """

    who: np.ndarray
    gain: np.ndarray
    replicates: np.ndarray
    sums: np.ndarray | None = None
    over: OverBest | None = None
    among: np.ndarray | None = None
    null: np.ndarray | None = None

    def at(self, rows: np.ndarray) -> np.ndarray:
        """The places of some models among `who`."""
        return np.flatnonzero(np.isin(self.who, rows))


class _Mean(NamedTuple):
    """A mean gain, to be averaged over bases: its sums by cluster, or its replicates; variance."""

    tasks: tuple[str, ...]
    clusters: np.ndarray
    sums: np.ndarray | None
    replicates: np.ndarray
    gain: float


class _Group:
    """The models of one base on one suite and what they are compared with."""

    def __init__(
        self, rows: pd.DataFrame, outcomes: Outcomes, pool: int, facts: Facts, seed: int
    ) -> None:
        self.rows, self.pool, self.facts, self.seed = rows, pool, facts, seed
        self.outcomes, self.questions = outcomes, outcomes.questions
        self.sums = outcomes.sums()
        self.members = [frozenset(text.split(";")) - {""} for text in rows["members"]]
        self.accuracy = self.sums.sum(1)
        self.replicates = self.questions.resample(self.sums, seed)
        self.single = ((rows["n"] == 1) & (rows["recipe"] == "identity")).to_numpy()
        self.merged = np.flatnonzero((rows["recipe"] != "identity").to_numpy())
        self.references: dict[str, _Against] = {}
        self.base: int | None = None
        base = np.flatnonzero((rows["subset"] == "base").to_numpy())
        if len(base):
            self.base = int(base[0])
            self.references["base"] = self._against_base(self.base)
        singles = np.flatnonzero(self.single)
        self.experts: Experts | None = None
        if len(singles) and len(self.merged):
            self.experts = Experts.of(self.questions, self.sums, singles, self.merged)
            names = rows["subset"].to_numpy()[singles]
            own = np.array([[name in self.members[m] for m in self.merged] for name in names])
            whole = np.array([len(self.members[m]) for m in self.merged]) == own.sum(0)
            if whole.all():
                self.references["own"] = self._against_best(own)
            self.references["best"] = self._against_best(np.ones_like(own))

    def _against_base(self, base: int) -> _Against:
        who = np.array([i for i in range(len(self.rows)) if i != base], int)
        sums = self.sums[who] - self.sums[base]
        replicates = 100 * (self.replicates[who] - self.replicates[base])
        null = 100 * self.questions.flip(sums, self.seed)
        return _Against(
            who,
            (100 * sums.sum(1)).round(DIGITS),
            replicates.round(DIGITS),
            sums,
            null=null.round(DIGITS),
        )

    def _against_best(self, among: np.ndarray) -> _Against:
        assert self.experts is not None
        margin = self.facts.margin / 100
        over = self.experts.over_best(among, self.accuracy, self.merged, self.replicates, margin)
        return _Against(
            self.merged,
            over.gain.round(DIGITS),
            over.replicates.round(DIGITS),
            over=over,
            among=among,
        )

    def comparisons(self) -> Iterator[pd.DataFrame]:
        """A row a model and reference, as `COMPARISONS` but for what is corrected."""
        for name, found in self.references.items():
            if not len(found.who):
                continue
            over, at = found.over, self.base
            best = np.full(len(found.who), at) if over is None else over.best
            own = found.sums if found.sums is not None else self.sums[found.who] - self.sums[best]
            moments = Moments.of(self.questions, own)
            if over is None:
                p = paired_test(own)
                low, high = (100 * end for end in moments.interval(p))
                corrected = np.full(len(found.who), np.nan)
            else:
                p, low, high, corrected = over.p, over.low, over.high, over.corrected
            error = np.sqrt(self.questions.variance(own))
            unpaired = self.questions.variance(self.sums)
            apart = np.sqrt(unpaired[found.who] + unpaired[best])
            correct = self.outcomes.correct
            differing = [
                int((correct[i] != correct[j]).sum()) for i, j in zip(found.who, best, strict=True)
            ]
            yield self.rows.loc[found.who, MODEL].assign(
                reference=name,
                reference_model=self.rows["subset"].to_numpy()[best],
                gain=found.gain,
                gain_corrected=corrected,
                low=low.round(DIGITS),
                high=high.round(DIGITS),
                width_to_unpaired=np.where(error > 0, error / np.maximum(apart, 1e-12), np.nan),
                differing=differing,
                se=100 * self._plain_error(found.who, best),
                se_clustered=100 * error,
                mde=100 * smallest_seen(error, 1),
                p_least=least_p(own),
                p=p,
                p_equal=moments.equal(self.facts.margin / 100) if over is None else over.equal,
            )

    def _plain_error(self, who: np.ndarray, best: np.ndarray) -> np.ndarray:
        """Standard errors of the gains as if no question depended on another."""
        questions, correct = self.questions, self.outcomes.correct
        square = np.zeros(len(who))
        for s in range(len(questions.tasks)):
            own = questions.stratum == s
            count = int(own.sum())
            apart = correct[np.ix_(who, own)] - correct[np.ix_(best, own)]
            square += apart.var(axis=1) / max(count - 1, 1) / len(questions.tasks) ** 2
        return np.sqrt(square)

    def cells(self, keys: list[str]) -> Iterator[tuple[Any, str, np.ndarray]]:
        """Yield (key, reference's name, rows) of sets of merges; n = 1 holds the checkpoints."""
        rows = self.rows.loc[self.merged]
        if "n" in keys:
            rows = pd.concat([self.rows[self.single], rows])
        for key, cell in rows.groupby(keys, sort=False):
            for name, found in self.references.items():
                if np.isin(cell.index, found.who).all():
                    yield key, name, cell.index.to_numpy()

    def _merges(self, name: str, cell: np.ndarray) -> Merges:
        found = self.references[name]
        at = found.at(cell)
        rows = self.rows.loc[found.who[at]]
        return Merges(
            found.gain[at], found.replicates[at], rows["n"].to_numpy(),
            [self.members[i] for i in found.who[at]], bool((rows["draw"] > 0).all()), self.pool,
        )  # fmt: skip

    def mean(self, cell: np.ndarray, name: str) -> _Mean:
        """The mean over some models of their difference to a reference."""
        found = self.references[name]
        at = found.at(cell)
        sums = None if found.sums is None else found.sums[at].mean(0)
        gain = float(found.gain[at].mean())
        replicates = found.replicates[at].mean(0)
        return _Mean(self.questions.tasks, self.questions.size, sums, replicates, gain)

    def summary(self, cell: np.ndarray, name: str) -> dict[str, Any]:
        """The mean gain of some models over a reference, with its intervals and tests."""
        found = self.references[name]
        at, merges = found.at(cell), self._merges(name, cell)
        mean, margin = float(merges.gain.mean()), self.facts.margin
        said: dict[str, Any] = {
            "models": len(at), "share": 100 * float((merges.gain > 0).mean()), "gain": mean,
        }  # fmt: skip
        if found.over is None and found.sums is not None:
            sums = found.sums[at].mean(0, keepdims=True)
            moments = Moments.of(self.questions, sums)
            p = paired_test(sums)
            low, high = (100 * float(end[0]) for end in moments.interval(p))
            test = float(p[0]), float(moments.equal(margin / 100)[0])
            variance = 1e4 * float(self.questions.variance(sums)[0])
        else:
            assert found.over is not None
            over = self._mean_over_best(found, at)
            low, high = over.interval()
            said["gain_corrected"] = float(found.over.corrected[at].mean())
            variance = float(merges.replicates.mean(0).var())
            test = over.p, over.equal(margin)
        said |= {"questions_low": low, "questions_high": high}
        said["mde"] = float(smallest_seen(math.sqrt(variance)))
        shares = share_over_questions(merges)
        said["share_questions_low"], said["share_questions_high"] = shares
        if found.null is not None:
            null = found.null[at]
            share = 100 * ((null > 0).mean(0) + (null == 0).mean(0) / 2)
            tail = 50 * ALPHA
            said["share_null_low"], said["share_null_high"] = np.percentile(
                share, [tail, 100 - tail]
            )
        spreads: dict[str, Spread] = {}
        if merges.drawn:
            more, spreads = ends(merges, variance, self.seed)
            if found.over is not None and not math.isnan(low):
                for name_ in {"both", "checkpoints"} & spreads.keys():
                    wide = widened((low, high), mean, spreads[name_], variance)
                    more[f"{name_}_low"], more[f"{name_}_high"] = wide
            said |= more
            said["true_sd"], said["share_true"] = true_spread(merges)
            sizes = np.unique(merges.n)
            subsets = math.comb(self.pool, int(sizes[0]))
            above = int((merges.gain > 0).sum())
            interval = stats.share_over_draws(above, len(at), subsets) if len(sizes) == 1 else None
            if interval:
                said["share_low"], said["share_high"] = 100 * interval[0], 100 * interval[1]
        about = headline(self.facts.population, spreads, mean, test)
        said |= about
        wider = spreads.get(about["population"])
        said["p_equal"] = test[1] if wider is None else max(test[1], wider.equal(mean, margin))
        if wider is not None and found.over is not None:
            said["p"] = weakened(test[0], abs(mean), wider, variance)
        return said

    def _mean_over_best(self, found: _Against, at: np.ndarray) -> MeanOverBest:
        """The mean of some merges against the best of each one's set."""
        assert self.experts is not None and found.among is not None
        who = found.who[at]
        apart = self.sums[who].mean(0) - self.sums[self.experts.rows]
        return MeanOverBest(
            100 * float(self.accuracy[who].mean()),
            100 * self.accuracy[self.experts.rows],
            100 * np.sqrt(self.questions.variance(apart)),
            found.among[:, at],
        )

    def ranked(self) -> pd.DataFrame:
        """The merges by their gain over the base."""
        if self.base is None or not len(self.merged):
            return pd.DataFrame(columns=RANKED)
        found = self.references["base"]
        at = found.at(self.merged)
        assert found.sums is not None
        order = ranked(self.questions, found.sums[at], found.replicates[at] / 100)
        frame = self.rows.loc[self.merged, MODEL].assign(
            rank=order.rank, gain=found.gain[at], gain_corrected=order.corrected, low=order.low,
            high=order.high, contender=order.contender, over_members=self._over_members(),
        )  # fmt: skip
        return frame.sort_values("rank")

    def _over_members(self) -> list[str]:
        if self.experts is None:
            return [""] * len(self.merged)
        names = self.rows["subset"].to_numpy()[self.experts.rows]
        said = []
        for place, row in enumerate(self.merged):
            gains = dict(zip(names, 100 * self.experts.gain[:, place], strict=True))
            said.append(listed([n for n in names if n in self.members[row]], gains))
        return said


def compare_study(study: StudyOutcomes, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Compare every model of a study with its base and with the best checkpoints.

    References: `base`; `own`, the best of a merge's own members; `best`, the best of all single
    checkpoints (see `best`). Questions of one cluster count as one. `docs/data.md` says what each
    column holds.

    Args:
        study: outcomes and what the study declares.
        seed: of the resampling.

    Returns:
        Frames by name, gains in percentage points, shares in percent:
        `comparisons`, a row a model and reference, tested alone, and adjusted by Benjamini-Hochberg
        and by Holm for all merges of the study against that reference (single checkpoints are a
        family of their own), with the verdict at a false discovery rate of 5 %;
        `intervals`, a row a base, suite, recipe, n and reference;
        `answers`, the same over all merges of a recipe, with the test of their mean gain, adjusted
        by Holm for all rows with that reference; base `average` is the mean over bases;
        `methods`, two recipes on the same subsets (`methods.compare`);
        `best`, the merges of a base by their gain.
    """
    pools = study.plan.groupby("base")["pool"].max().to_dict()
    cells_of = study.plan[[*KEYS, "recipe", "n"]].itertuples(index=False, name=None)
    planned = Counter(key for cell in cells_of for key in (cell, cell[:-1]))
    models: list[pd.DataFrame] = []
    order: list[pd.DataFrame] = []
    cells: list[dict[str, Any]] = []
    means: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    shared: dict[tuple[str, str, str], list[tuple[int, _Mean]]] = {}
    for base, suite, rows, outcomes in study:
        group = _Group(rows, outcomes, pools[base], study.facts, seed)
        models += group.comparisons()
        order.append(group.ranked())
        key = {"base": base, "suite": suite}
        for (recipe, n), name, cell in group.cells(["recipe", "n"]):
            found = group.summary(cell, name) | {"planned": planned[base, suite, recipe, n]}
            cells.append(key | {"recipe": recipe, "n": n, "reference": name} | found)
        for (recipe,), name, cell in group.cells(["recipe"]):
            mean = group.mean(cell, name)
            shared.setdefault((suite, recipe, name), []).append((len(means), mean))
            found = group.summary(cell, name) | {"planned": planned[base, suite, recipe]}
            means.append(key | {"recipe": recipe, "reference": name} | found)
        pairs += methods.compare(
            group.rows, group.members, group.sums, group.replicates, group.outcomes,
            pools[base], study.facts, seed, key,
        )  # fmt: skip
    # A frame without rows, of a base with all missing, has no types either.
    filled = [frame for frame in models if len(frame)]
    comparisons = _tested(pd.concat(filled) if filled else pd.DataFrame(columns=COMPARISONS))
    intervals = _with_shares(pd.DataFrame(cells), comparisons, ["recipe", "n"])
    answers = _with_shares(pd.DataFrame(means), comparisons, ["recipe"])
    if len(answers):
        averages = _averages(answers, shared, len({base for base, *_ in study}), study.facts)
        answers = pd.concat([answers, averages], ignore_index=True)
        for _, family in answers.groupby("reference"):
            for p in ("p", "p_equal"):
                adjusted = stats.holm(family[p].to_numpy(float))
                answers.loc[family.index, f"{p}_holm"] = adjusted
        columns = (answers[key] for key in ("gain", "p_holm", "p_equal_holm"))
        answers["verdict"] = stats.verdicts(*columns)
    frames = {
        "comparisons": comparisons,
        "intervals": intervals,
        "answers": answers,
        "methods": methods.tested(pd.DataFrame(pairs)),
        "best": pd.concat(order) if order else pd.DataFrame(),
    }
    return {
        name: frame.reindex(columns=FRAMES[name]).reset_index(drop=True)
        for name, frame in frames.items()
    }


def _tested(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Add the corrected p-values and the verdicts; merges and single checkpoints are families."""
    comparisons = comparisons.reset_index(drop=True)
    adjusted = ["p_false_discovery", "p_holm", "p_equal_holm"]
    comparisons[adjusted] = np.nan
    for _, family in comparisons.groupby(["reference", comparisons["recipe"] == "identity"]):
        p = family["p"].to_numpy(float)
        comparisons.loc[family.index, "p_false_discovery"] = stats.false_discovery(p)
        comparisons.loc[family.index, "p_holm"] = stats.holm(p)
        equal = stats.holm(family["p_equal"].to_numpy(float))
        comparisons.loc[family.index, "p_equal_holm"] = equal
    columns = (comparisons[key] for key in ("gain", "p_false_discovery", "p_equal_holm"))
    return comparisons.assign(verdict=stats.verdicts(*columns))


def _averages(
    answers: pd.DataFrame,
    shared: dict[tuple[str, str, str], list[tuple[int, _Mean]]],
    bases: int,
    facts: Facts,
) -> pd.DataFrame:
    """The mean over bases of each recipe, where all have the same questions and planned merges."""
    found = []
    for (suite, recipe, name), group in shared.items():
        index, means = zip(*group, strict=True)
        rows, first = answers.loc[list(index)], means[0]
        same = all(
            m.tasks == first.tasks and np.array_equal(m.clusters, first.clusters) for m in means
        )
        if bases == 1 or len(group) < bases or not same or rows["planned"].nunique() > 1:
            continue
        columns = ["share", "share_above", "share_below", "gain", "gain_corrected"]
        said: dict[str, Any] = rows.reindex(columns=columns).mean().to_dict()
        said |= {"base": "average", "suite": suite, "recipe": recipe, "reference": name}
        said |= {"models": rows["models"].sum(), "planned": rows["planned"].sum()}
        said["population"] = "questions"
        gains = rows["gain"].to_numpy(float)
        spread = Spread(float(gains.var(ddof=1)) / len(gains), len(gains) - 1)
        said["bases_low"], said["bases_high"] = spread.interval(float(gains.mean()))
        replicates = np.mean([m.replicates for m in means], axis=0)
        if first.sums is not None:
            sums = np.mean([m.sums for m in means], axis=0)[None]
            even = float(np.square(first.clusters).sum())
            square, size = np.square(sums).sum(1), np.abs(sums).sum(1)
            step = np.where(size > 0, square / np.where(size > 0, size, 1), even)
            moments = Moments(sums.sum(1), square, step, even)
            p = paired_test(sums)
            low, high = (100 * float(end[0]) for end in moments.interval(p))
            said |= {"p": float(p[0]), "p_equal": float(moments.equal(facts.margin / 100)[0])}
        else:
            # Of all bases at once, as if their errors were the same ones.
            low, high = (float(rows[f"questions_{end}"].mean()) for end in ("low", "high"))
            gain = said["gain"]
            half = (gain - low if gain > 0 else high - gain) / distributions.norm.ppf(1 - ALPHA / 2)
            error = Spread(half**2 if half == half else 0.0, math.inf)
            said |= {"p": error.p(gain), "p_equal": error.equal(gain, facts.margin)}
        said |= {"questions_low": low, "questions_high": high}
        said["mde"] = float(smallest_seen(replicates.std()))
        found.append(said)
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


def compare_two(path_a: str | Path, path_b: str | Path) -> pd.DataFrame:
    """Compare two evaluated models, task by task and on the mean over tasks.

    Args:
        path_a: items.parquet of one model, results/scores/.../*.items.parquet.
        path_b: that of the other model, on the same suite.

    Returns:
        One row a task and a last one, `mean over tasks`: questions, a and b (percent right),
        difference a - b (points) with its 95 % interval over questions (score interval) and the
        p-value of `questions.paired_test`; for tasks it is adjusted by Holm for their number.

    Raises:
        WildmergeError: a file is not there, or the questions of the two differ.
    """
    for path in (path_a, path_b):
        if not Path(path).exists():
            raise WildmergeError(
                f"The outcomes of an evaluated model were expected in {path}, found no file. Name "
                "two files results/scores/.../SUITE.items.parquet of the same suite."
            )
    outcomes = read_outcomes([path_a, path_b])
    correct, questions = outcomes.correct, outcomes.questions
    rows = []
    for i, task in enumerate([*questions.tasks, "mean over tasks"]):
        own = (questions.stratum == i) | (i == len(questions.tasks))
        part = questions.only(own)
        sums = part.sums(correct[:, own].astype(float))
        difference = sums[:1] - sums[1:]
        p = paired_test(difference)
        low, high = (100 * float(end[0]) for end in Moments.of(part, difference).interval(p))
        a, b = 100 * sums.sum(1)
        rows.append(
            {"task": task, "questions": int(own.sum()), "a": a, "b": b, "difference": a - b,
             "low": low, "high": high, "p": float(p[0])}
        )  # fmt: skip
    table = pd.DataFrame(rows)
    table.loc[table.index[:-1], "p"] = stats.holm(table["p"].to_numpy()[:-1])
    return table


def report_two(path_a: str | Path, path_b: str | Path) -> str:
    """The comparison of two evaluated models in words and columns, for a terminal.

    Args, errors: as for `compare_two`.
    """
    table = compare_two(path_a, path_b)
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
    told = stats.verdict(last.difference, last.p)
    word = {"above": "a is better", "below": "b is better"}.get(told)
    lines += [
        "",
        f"{word or 'The two are not told apart'} on the mean over tasks (paired test, 5 %). "
        "Intervals: 95 % over questions, clusters as one; p-values of tasks: Holm.",
    ]
    return "\n".join(lines)
