"""The answers of a study in words and in a table: each method against a reference."""

import math
from typing import Any

import pandas as pd
from markupsafe import Markup

from .looks import Looks, base_label
from .numbers import MISSING, interval, percent, signed
from .templates import Table, listed, verdict

MOST_NAMED = 12  # methods that a sentence names; the points of a sweep are counted
REFERENCES = {
    "base": "the base",
    "own": "the best of its members",
    "best": "the best single checkpoint",
}
# What a verdict on a mean gain is about, in words.
POPULATIONS = {
    "questions": "over questions",
    "draws": "over draws",
    "both": "over questions and draws",
    "checkpoints": "over other checkpoints and questions",
}


def sentences(answers: pd.DataFrame, looks: Looks) -> list[Markup]:
    """The study's answers in words, one base, suite and reference a sentence.

    Means over bases come first where there are several.

    Args:
        answers: rows of answers.csv.
        looks: of the study.
    """
    several = answers["suite"].nunique() > 1
    order = sorted(answers["base"].unique(), key=lambda base: base != "average")
    found = []
    for reference, name in REFERENCES.items():
        for base in order:
            for suite in answers["suite"].unique():
                rows = answers[
                    (answers["base"] == base)
                    & (answers["suite"] == suite)
                    & (answers["reference"] == reference)
                ]
                if len(rows):
                    where = "On average over bases" if base == "average" else base_label(base)
                    where = f"{where}, {suite}" if several else where
                    said = _sentence(rows, name, looks)
                    found.append(Markup("<b>{}:</b> {}").format(where, said))
    return found


def _sentence(rows: pd.DataFrame, reference: str, looks: Looks) -> Markup:
    if len(rows) > MOST_NAMED:
        return _counts(rows, reference, looks)
    clauses = []
    for word, verb in (("above", "better"), ("below", "worse")):
        judged = rows[rows["verdict"] == word].sort_values("gain", ascending=word == "below")
        if len(judged):
            gains = [
                f"{looks.label(r.recipe)} by {abs(r.gain):.2f} points ({_about(r)})"
                for r in judged.itertuples()
            ]
            clauses.append(
                Markup('<span class="{}">{} than {}</span>: {}').format(
                    word, verb, reference, listed(gains)
                )
            )
    if (rows["verdict"] == "equal").any():
        names = [looks.label(recipe) for recipe in rows.loc[rows["verdict"] == "equal", "recipe"]]
        clauses.append(
            Markup("equal to {} within the study's margin: {}").format(reference, listed(names))
        )
    apart = rows[rows["verdict"] == "not told apart"]
    if len(apart) == len(rows):
        return Markup("no method is told apart from {}.").format(reference)
    if len(apart):
        names = [looks.label(recipe) for recipe in apart["recipe"]]
        clauses.append(Markup("not told apart from it: {}").format(listed(names)))
    return Markup("{}.").format(Markup("; ").join(clauses))


def _about(row: Any) -> str:
    """The interval of a mean gain in the population that its verdict is about, in words."""
    name = getattr(row, "population", "questions")
    ends = interval(getattr(row, f"{name}_low"), getattr(row, f"{name}_high"))
    return f"{ends} {POPULATIONS[name]}"


def _counts(rows: pd.DataFrame, reference: str, looks: Looks) -> Markup:
    clauses = []
    for word, verb in (("above", "better"), ("below", "worse")):
        judged = rows[rows["verdict"] == word]
        if len(judged):
            most = judged.loc[judged["gain"].abs().idxmax()]
            clauses.append(
                Markup(
                    '{} are <span class="{}">{} than {}</span>, most of all {} by {} points ({})'
                ).format(
                    len(judged), word, verb, reference, looks.label(most["recipe"]),
                    f"{abs(most['gain']):.2f}",
                    interval(most["questions_low"], most["questions_high"]),
                )
            )  # fmt: skip
    if same := (rows["verdict"] == "equal").sum():
        clauses.append(Markup("{} are equal to it within the study's margin").format(same))
    apart = (rows["verdict"] == "not told apart").sum()
    clauses.append(Markup("{} are not told apart from it").format(apart))
    return Markup(
        "of {} settings {}. The largest difference of so many is flattered by chance."
    ).format(len(rows), Markup("; ").join(clauses))


def share_band(row: Any) -> str:
    """The interval of a share of merges over questions, `20 to 88 %`; a dash where none is."""
    if math.isnan(row.share_questions_low):
        return MISSING
    return f"{row.share_questions_low:.0f} to {percent(row.share_questions_high)}"


def answer_table(answers: pd.DataFrame, reference: str, looks: Looks) -> Table:
    """Mean gain of each method's merges with its intervals, shares and verdict."""
    rows = answers[answers["reference"] == reference]
    bases, recipes = [*dict.fromkeys(answers["base"])], looks.order(answers["recipe"])
    place = {"base": bases.index, "recipe": recipes.index}  # the mean over bases comes last
    rows = rows.sort_values(
        ["base", "suite", "recipe"], key=lambda c: c.map(place[c.name]) if c.name in place else c
    )
    several = rows["suite"].nunique() > 1
    lines = []
    for r in rows.itertuples():
        base = base_label(r.base) + (f", {r.suite}" if several else "")
        p = None if math.isnan(r.p_holm) else f"{r.p_holm:.2g}"
        lines.append(
            [
                base, looks.label(r.recipe),
                f"{r.models:.0f}" + (f" of {r.planned:.0f}" if r.models < r.planned else ""),
                signed(r.gain), interval(r.questions_low, r.questions_high),
                interval(r.draws_low, r.draws_high), interval(r.both_low, r.both_high),
                interval(r.checkpoints_low, r.checkpoints_high), p, verdict(r.verdict),
                f"{percent(r.share)} ({share_band(r)})",
                f"{percent(r.share_above)} / {percent(r.share_below)}",
            ]
        )  # fmt: skip
    header = [
        "Base", "Method", "merges", "mean gain", "95 % over questions", "over draws", "over both",
        "over other checkpoints", "p, Holm", "verdict", "merges above (95 % over questions)",
        "significantly above / below",
    ]  # fmt: skip
    return Table(header, lines, names=2)
