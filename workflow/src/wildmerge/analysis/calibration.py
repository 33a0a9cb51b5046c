"""Probabilities of the right answers, at each model's own temperature: a finer outcome than right.

Raw log-likelihoods are no outcome to compare by: merging flattens or sharpens them, and a model
whose logits are all 5 % smaller answers every question as before, yet "differs" on each. So every
model is first given, task by task, the temperature that suits it best; each tenth of the clusters
is scored at the temperature of all others.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import special, stats as distributions

from wildmerge import WildmergeError
from wildmerge.files import read_json

from . import stats
from .questions import LEVEL, Questions
from .scores import MODEL, left_out

OUTCOMES = {"probability": 100.0, "log-probability": 1.0}  # and what a difference is multiplied by
CALIBRATED = [
    *MODEL, "outcome", "temperature", "gain", "low", "high", "se", "p", "p_holm", "verdict",
]  # fmt: skip
NEEDED = ["task", "doc", "cluster", "target", "loglikelihoods", "lengths"]
SOFTMAX = "float32"  # in half precision log-likelihoods of long answers come in steps
FOLDS = 10
BOUNDS = 1e-3, 1e3  # of an inverse temperature


def _slopes(
    scores: np.ndarray, target: np.ndarray, beta: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """First and minus second derivative by beta of each question's log-probability."""
    scaled = np.multiply(scores.T, beta).T
    weight = special.softmax(np.where(np.isfinite(scores), scaled, -np.inf), axis=1)
    known = np.where(np.isfinite(scores), scores, 0.0)
    mean = (weight * known).sum(1)
    return known[np.arange(len(known)), target] - mean, (weight * known**2).sum(1) - mean**2


def inverse_temperature(scores: np.ndarray, target: np.ndarray) -> float:
    """What scores are multiplied by so that their softmax makes the right choices likeliest.

    Newton's method on the mean log-probability, which is concave.
    scores: (questions, choices), -inf where there is no choice; target: (questions,) int.
    """
    beta = 1.0
    for _ in range(50):
        slope, bend = (part.mean() for part in _slopes(scores, target, beta))
        step = slope / max(bend, 1e-12)
        # At most double or halve: the quadratic only holds nearby.
        new = float(np.clip(beta + step, max(beta / 2, BOUNDS[0]), min(2 * beta, BOUNDS[1])))
        if abs(new - beta) < 1e-9 * beta:
            return new
        beta = new
    return beta


def calibrated(
    scores: np.ndarray, target: np.ndarray, fold: np.ndarray
) -> tuple[np.ndarray, float]:
    """The log-probability of the right choice of each question of a task, cross-fitted.

    Each fold has the temperature of all others: one step of Newton's method from that of all
    questions, without the fold.

    Args:
        scores: (questions, choices) of one model, as the task's metric compares them; -inf where
            there is no choice.
        target: (questions,) int, the right choice.
        fold: (questions,) int from 0.

    Returns:
        (questions,) float64, and the temperature of all questions.
    """
    beta = inverse_temperature(scores, target)
    parts = (np.bincount(fold, part) for part in _slopes(scores, target, beta))
    slope, bend = (part.sum() - part for part in parts)
    own = np.clip(beta + slope / np.maximum(bend, 1e-12), beta / 2, 2 * beta)[fold]
    scaled = np.where(np.isfinite(scores), scores * own[:, None], -np.inf)
    likely = special.log_softmax(scaled, axis=1)
    return likely[np.arange(len(scores)), target], 1 / beta


def _folds(task: str, cluster: np.ndarray) -> np.ndarray:
    """The fold of each question, whole clusters by the task's name: (questions,) int."""
    number = np.unique(cluster, return_inverse=True)[1].reshape(-1)
    rng = np.random.default_rng(zlib.crc32(task.encode()))
    return (rng.permutation(number.max() + 1) % FOLDS)[number]


def _read(path: str | Path) -> pa.Table | None:
    """The outcomes of a model that have log-likelihoods; None where none has, or 0.1 wrote them."""
    if not set(NEEDED) <= set(pq.read_schema(path).names):
        return None
    items = pq.read_table(path, columns=NEEDED)
    # Generated answers, and questions without a right choice, have no such outcome.
    items = items.filter(pc.field("target") >= 0)
    return items.set_column(0, "task", items["task"].cast(pa.string())) if len(items) else None


def _padded(items: pa.Table, by_length: np.ndarray) -> np.ndarray:
    """(questions, choices) float64 scores as the metric compares them, -inf beyond the choices."""
    values = items["loglikelihoods"].combine_chunks()
    lengths = items["lengths"].combine_chunks()
    offsets = values.offsets.to_numpy()
    count = np.diff(offsets)
    place = np.arange(count.max()) < count[:, None]
    scores = np.full(place.shape, -np.inf)
    scores[place] = values.flatten().to_numpy().astype(np.float64)
    size = np.ones(place.shape)
    size[place] = np.maximum(lengths.flatten().to_numpy(), 1)
    return np.where(by_length[:, None], scores / size, scores)


def _log_probabilities(items: pa.Table, metrics: Mapping[str, str]) -> tuple[np.ndarray, float]:
    """Of the right choice, question by question; NaN where a model's log-likelihoods overflow."""
    task = items["task"].to_numpy(zero_copy_only=False)
    scores = _padded(items, np.array([metrics[name] == "acc_norm" for name in task]))
    target, cluster = items["target"].to_numpy(), items["cluster"].to_numpy()
    finite = np.isfinite(pc.list_flatten(items["loglikelihoods"]).to_numpy()).all()
    found, temperatures = np.full(len(task), np.nan), []
    if not finite:
        return found, np.nan
    for name in dict.fromkeys(task):
        own = np.flatnonzero(task == name)
        fold = _folds(name, cluster[own])
        found[own], temperature = calibrated(scores[own], target[own], fold)
        temperatures.append(temperature)
    return found, float(np.exp(np.mean(np.log(temperatures))))


def _models(
    plan: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[Mapping[str, Any], dict[str, str]]]:
    """The rows of the plan whose scores are fine enough, with the metric of each task."""
    for row, why in zip(plan, left_out(plan), strict=True):
        if why or not Path(row["scores"]).exists():
            continue
        score = read_json(row["scores"])
        if score.get("softmax_dtype") == SOFTMAX:
            yield row, {name: entry["metric"] for name, entry in score["tasks"].items()}


def calibrate_study(plan: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Compare every model of a study with its base by the probabilities of the right answers.

    Only suites whose `softmax_dtype` is float32 are; questions without a right choice are left out.

    Args:
        plan: one dict an evaluated model and suite, as for `scores.read`, with the path items.

    Returns:
        The columns `CALIBRATED`, a row a model and outcome: the mean over tasks of the difference
        (percentage points, or nats of the log-probability), its 95 % interval over questions,
        robust to clusters, the p-value, adjusted by Holm for all merges of the study with that
        outcome (single checkpoints are a family of their own), and the verdict.

    Raises:
        WildmergeError: two models of a base were asked other questions.
    """
    bases: dict[tuple[str, str], tuple[np.ndarray, Questions, pa.Table]] = {}
    rows: list[dict[str, Any]] = []
    for row, metrics in sorted(_models(plan), key=lambda pair: pair[0]["subset"] != "base"):
        items = _read(row["items"])
        if items is None:
            continue
        names = items.select(["task", "doc", "cluster", "target"])
        likely, temperature = _log_probabilities(items, metrics)
        key = row["base"], row["suite"]
        if row["subset"] == "base":
            task = items["task"].to_numpy(zero_copy_only=False)
            tasks = [*dict.fromkeys(task)]
            stratum = np.array([tasks.index(name) for name in task])
            cluster = items["cluster"].to_numpy()
            bases[key] = likely, Questions.of(tasks, stratum, cluster), names
        if key not in bases or row["subset"] == "base":
            continue
        base, questions, asked = bases[key]
        if not names.equals(asked):
            raise WildmergeError(
                f"Models are compared on the same questions in the same order, but {row['items']} "
                "holds others than its base's. One of the two is older than the suite: delete its "
                "scores and evaluate it again."
            )
        model = {name: row[name] for name in MODEL} | {"members": ";".join(row["members"])}
        for outcome, unit in OUTCOMES.items():
            pair = [likely, base]
            one, other = pair if outcome == "log-probability" else map(np.exp, pair)
            sums = questions.sums(one - other)
            gain = unit * float(sums.sum())
            error = unit * float(np.sqrt(questions.variance(sums)[0]))
            half = distributions.norm.ppf((1 + LEVEL) / 2) * error
            p = 2 * distributions.norm.sf(abs(gain) / error) if error > 0 else np.nan
            said = {"outcome": outcome, "temperature": temperature, "gain": gain, "se": error}
            rows.append(model | said | {"low": gain - half, "high": gain + half, "p": p})
    return _tested(pd.DataFrame(rows, columns=[c for c in CALIBRATED if c not in ("p_holm",)]))


def _tested(frame: pd.DataFrame) -> pd.DataFrame:
    """Add Holm's p-values, a family an outcome, and verdicts."""
    frame["p_holm"] = np.nan
    for _, family in frame.dropna(subset="p").groupby(["outcome", frame["recipe"] == "identity"]):
        frame.loc[family.index, "p_holm"] = stats.holm(family["p"].to_numpy(float))
    pairs = zip(frame["gain"], frame["p_holm"], strict=True)
    return frame.assign(verdict=[stats.verdict(*pair) for pair in pairs])[CALIBRATED]
