"""The answers of a study in words and in a table: each method against a reference."""

import html
import math

import pandas as pd

from .looks import Looks, base_label
from .markup import listed, table, text, word
from .numbers import interval, percent, signed

MOST_NAMED = 12  # methods that a sentence names; the points of a sweep are counted
REFERENCES = {"base": "the base", "best": "the best single checkpoint"}


def sentences(answers: pd.DataFrame, looks: Looks) -> list[str]:
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
                    where = html.escape(f"{where}, {suite}" if several else where)
                    found.append(f"<b>{where}:</b> {_sentence(rows, name, looks)}")
    return found


def _sentence(rows: pd.DataFrame, reference: str, looks: Looks) -> str:
    if len(rows) > MOST_NAMED:
        return _counts(rows, reference, looks)
    clauses = []
    for verdict, verb in (("above", "better"), ("below", "worse")):
        own = rows[rows["verdict"] == verdict].sort_values("gain", ascending=verdict == "below")
        if len(own):
            gains = [
                f"{html.escape(looks.label(r.recipe))} by {abs(r.gain):.2f} points "
                f"({interval(r.questions_low, r.questions_high)}"
                + ("; other subsets may differ" if r.draws_low <= 0 <= r.draws_high else "")
                + ")"
                for r in own.itertuples()
            ]
            clauses.append(
                f'<span class="{verdict}">{verb} than {reference}</span>: {listed(gains)}'
            )
    apart = rows[rows["verdict"] == "not told apart"]
    if len(apart) == len(rows):
        return f"no method is told apart from {reference}."
    if len(apart):
        names = [html.escape(looks.label(recipe)) for recipe in apart["recipe"]]
        clauses.append(f"not told apart from it: {listed(names)}")
    return f"{'; '.join(clauses)}."


def _counts(rows: pd.DataFrame, reference: str, looks: Looks) -> str:
    clauses = []
    for verdict, verb in (("above", "better"), ("below", "worse")):
        own = rows[rows["verdict"] == verdict]
        if len(own):
            most = own.loc[own["gain"].abs().idxmax()]
            label = html.escape(looks.label(most["recipe"]))
            clauses.append(
                f'{len(own)} are <span class="{verdict}">{verb} than {reference}</span>, most of '
                f"all {label} by {abs(most['gain']):.2f} points "
                f"({interval(most['questions_low'], most['questions_high'])})"
            )
    clauses.append(f"{(rows['verdict'] == 'not told apart').sum()} are not told apart from it")
    told = f"of {len(rows)} settings {'; '.join(clauses)}."
    return f"{told} The largest difference of so many is flattered by chance."


def answer_table(answers: pd.DataFrame, reference: str, looks: Looks) -> str:
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
        p = "–" if math.isnan(r.p_holm) else f"{r.p_holm:.2g}"
        lines.append(
            [
                text(base), text(looks.label(r.recipe)),
                f"{r.models:.0f}" + (f" of {r.planned:.0f}" if r.models < r.planned else ""),
                signed(r.gain), interval(r.questions_low, r.questions_high),
                interval(r.draws_low, r.draws_high), p, word(r.verdict), percent(r.share),
                f"{percent(r.share_above)} / {percent(r.share_below)}",
            ]
        )  # fmt: skip
    header = [
        "Base", "Method", "merges", "mean gain", "95 % over questions", "95 % over draws",
        "p, Holm", "verdict", "merges above", "significantly above / below",
    ]  # fmt: skip
    return table(header, lines, names=2)
