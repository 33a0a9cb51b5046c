"""The first screen of a report: three questions, each answered by name and with its certainty."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from markupsafe import Markup

from wildmerge.study import paths

from .looks import Looks, base_label
from .numbers import interval, percent, signed
from .templates import listed

# Population -> what a claim about it is good for, after "this holds for".
_HOLDS_FOR = {
    "questions": "these very merges, had other questions been asked",
    "draws": "other subsets of these checkpoints",
    "both": "other subsets of these checkpoints and other questions",
    "checkpoints": "other checkpoints of this base and other questions",
    "bases": "other bases",
}
_FEW = 3  # names that a short sentence holds


@dataclass(frozen=True)
class Headline:
    """A question of a reader and its answer.

    Attributes:
        question: as a reader asks it.
        answer: in a few words, by name.
        verdict: `above`, `below`, `equal` or `not told apart`, for the colour.
        sentences: what the answer rests on.
        anchor: the section of the report that says more.
    """

    question: str
    answer: str
    verdict: str
    sentences: Sequence[str | Markup] = field(default_factory=list)
    anchor: str = "answers"


def headlines(
    name: str, frames: Mapping[str, pd.DataFrame], looks: Looks, margin: float
) -> list[Headline]:
    """The three questions that a reader comes with: which method, which merge, would mine gain.

    They are answered for the mean over bases where there is one, and for the first suite.

    Args:
        name: of the study.
        frames: its CSV files by name: answers, methods, best, comparisons.
        looks: of the study.
        margin: differences up to this count as equal, points.
    """
    answers = frames["answers"]
    answers = answers[answers["reference"] == "base"]
    if answers.empty:
        return []
    answers = answers[answers["suite"] == answers["suite"].iloc[0]]
    base = "average" if (answers["base"] == "average").any() else answers["base"].iloc[0]
    answers = answers[answers["base"] == base].sort_values("gain", ascending=False)
    pairs = frames["methods"]
    pairs = pairs[(pairs["n"].astype(str) == "all") & (pairs["contrast"].fillna("") == "")]
    pairs = pairs[pairs["suite"] == answers["suite"].iloc[0]]
    if base != "average":
        pairs = pairs[pairs["base"] == base]
    where = "On average over bases, " if base == "average" else ""
    return [
        _which_method(answers, pairs, looks, margin, where),
        *_which_merge(name, frames["best"], frames["comparisons"], looks),
        _would_mine_gain(answers, looks),
    ]


def _names(recipes: Sequence[str], looks: Looks) -> str:
    names = [looks.label(recipe) for recipe in recipes]
    if len(names) > _FEW + 1:
        names = [*names[:_FEW], f"{len(names) - _FEW} more"]
    return str(listed(names))


def _behind(pairs: pd.DataFrame, leader: str) -> tuple[list[str], list[str]]:
    """The other recipes: those that the leader is shown to be above, and the rest.

    Where there are several bases, above on each of them.
    """
    verdicts: dict[str, list[bool]] = {}
    for pair in pairs.itertuples():
        if leader in (pair.a, pair.b):
            other = pair.b if pair.a == leader else pair.a
            won = "above" if pair.a == leader else "below"
            verdicts.setdefault(str(other), []).append(pair.verdict == won)
    beaten = [recipe for recipe, won in verdicts.items() if all(won)]
    return beaten, [recipe for recipe in verdicts if recipe not in beaten]


def _which_method(
    answers: pd.DataFrame, pairs: pd.DataFrame, looks: Looks, margin: float, where: str
) -> Headline:
    first: Any = answers.iloc[0]
    label = looks.label(first["recipe"])
    beaten, others = _behind(pairs, first["recipe"])
    words = answers["verdict"]
    if first["verdict"] == "above":
        answer = label if not others else f"{label} leads, and is better than the base"
    elif (words == "below").all():
        answer = "None: each loses against the base"
    elif first["verdict"] == "equal":
        answer = f"None: {label}, the first, equals the base within {margin:g} points"
    else:
        answer = "None is shown to be better than the base"
    low, high = _ends(first)
    sentences = [
        f"{where}{label} comes first with a mean gain of {signed(first['gain'])} points "
        f"({interval(low, high)}); this holds for {_HOLDS_FOR[first['population']]}."
    ]
    if beaten:
        sentences.append(f"It is shown to be better than {_names(beaten, looks)}.")
    if others:
        sentences.append(f"Not shown to be better than {_names(others, looks)}.")
    if first["verdict"] not in ("above", "below") and not math.isnan(first["mde"]):
        sentences.append(f"These questions can show a gain of {first['mde']:.1f} points or more.")
    return Headline("Which method?", answer, first["verdict"], sentences, "methods")


def _ends(row: Any) -> tuple[float, float]:
    """The interval of the population that the row's verdict is about."""
    population = row["population"]
    return row[f"{population}_low"], row[f"{population}_high"]


def _which_merge(
    name: str, best: pd.DataFrame, comparisons: pd.DataFrame, looks: Looks
) -> list[Headline]:
    if best.empty:
        return []
    row: Any = best.sort_values("gain", ascending=False).iloc[0]
    merge = f"{row['subset']} by {looks.label(row['recipe'])}"
    if best["base"].nunique() > 1:
        merge = f"{base_label(row['base'])}, {merge}"
    same = (best["base"] == row["base"]) & (best["suite"] == row["suite"])
    rivals = int(best.loc[same, "contender"].sum())
    above = row["low"] > 0
    sentences: list[str | Markup] = [
        f"It scored {signed(row['gain'])} points over the base; corrected for having been picked "
        f"as the best of {same.sum()}, {signed(row['gain_corrected'])} "
        f"(for all of them at once {interval(row['low'], row['high'])})."
    ]
    keys = ["base", "subset", "recipe", "suite"]
    over = comparisons[(comparisons["reference"] == "own")]
    for key in keys:
        over = over[over[key] == row[key]]
    for own in over.itertuples():
        shown = {"above": "better than", "below": "worse than", "equal": "equal to"}
        told = shown.get(own.verdict, "not shown to differ from")
        sentences.append(
            f"It is {told} its best member, {own.reference_model} ({signed(own.gain)}, "
            f"{interval(own.low, own.high)})."
        )
    if rivals > 1:
        sentences.append(f"{rivals} of the {same.sum()} merges may be the best one.")
    path = paths.kept(name, row["base"], row["subset"], row["recipe"])
    sentences.append(Markup("To keep it: <code>snakemake {}</code>").format(path))
    answer = merge if above else f"None for sure; {merge} scored best"
    verdict = "above" if above else "not told apart"
    return [Headline("Which merge?", answer, verdict, sentences, "best")]


def _would_mine_gain(answers: pd.DataFrame, looks: Looks) -> Headline:
    first: Any = answers.iloc[0]
    label = looks.label(first["recipe"])
    low, high = first["checkpoints_low"], first["checkpoints_high"]
    verdict = "not told apart"
    if math.isnan(low):
        answer = "This study can't say"
        sentences = [
            "It has no interval over other checkpoints: for that at least five draws have to leave "
            "out each of them, and it is about one base at a time."
        ]
    else:
        if low > 0:
            answer, verdict = f"Yes, on average, by {label}", "above"
        elif high < 0:
            answer, verdict = f"No: {label} would lose on average", "below"
        else:
            answer = f"Not shown: {signed(low)} to {signed(high)} points"
        sentences = [
            f"With other checkpoints of this base, and other questions, {label}'s mean gain would "
            f"lie between {signed(low)} and {signed(high)} points (95 %)."
        ]
    share = f"{percent(first['share'])} of its {int(first['models'])} merges score above the base"
    if not math.isnan(first["share_null_low"]):
        share += (
            f"; without any gain it would be {first['share_null_low']:.0f} to "
            f"{percent(first['share_null_high'])}"
        )
    return Headline("Would mine gain?", answer, verdict, [*sentences, f"{share}."], "statistics")
