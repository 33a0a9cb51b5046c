"""Every number of the README's result stands in the CSV files beside its report."""

import re

import pandas as pd
import pytest
import yaml
from drawing import PAPERS
from project import ROOT
from wildmerge.reporting.looks import Looks
from wildmerge.reporting.numbers import interval, percent, signed

FOLDER = ROOT / "docs/small"
TITLE = "## A real result"


@pytest.fixture(scope="module")
def frames():
    names = ("scores", "merges", "comparisons", "intervals", "answers")
    return {name: pd.read_csv(FOLDER / f"{name}.csv", keep_default_na=False, na_values=[""])
            for name in names}  # fmt: skip


@pytest.fixture(scope="module")
def section():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.split(TITLE + "\n", 1)[1].split("\n## ", 1)[0]


def table(answers):
    """The README's table: a row a method, from answers.csv."""
    rows = answers.set_index(["recipe", "reference"])
    lines, looks = [], Looks(PAPERS)
    for recipe in looks.order(answers["recipe"]):
        base = rows.loc[recipe, "base"]
        cells = [
            looks.label(recipe),
            signed(base["gain"]),
            interval(base["questions_low"], base["questions_high"]),
            interval(base["draws_low"], base["draws_high"]),
            base["verdict"],
            percent(base["share"]),
            f"{percent(base['share_above'])} / {percent(base['share_below'])}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def test_the_table_is_that_of_answers(section, frames):
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert rows == table(frames["answers"])


def told(frames):
    """The README's phrases with numbers, from the CSV files."""
    merges, comparisons, scores = (frames[n] for n in ("merges", "comparisons", "scores"))
    merged = merges[merges["recipe"] != "identity"]
    base = merges[merges["subset"] == "base"].iloc[0]
    asked = scores[scores["subset"] == "base"]
    against = comparisons[comparisons["reference"] == "base"]
    own = against[against["recipe"] != "identity"]
    singles = against[against["recipe"] == "identity"].sort_values("gain")
    most = singles.iloc[-1]
    answers = frames["answers"].set_index("reference")
    assert (answers.loc["base", "draws_low"] > 0).all()
    narrower = 100 * (1 - comparisons["width_to_unpaired"].median())
    cells = frames["intervals"].query("reference == 'base' and n > 1")
    cells = cells.sort_values("gain")
    looks, ends = Looks(PAPERS), []
    for row in (cells.iloc[0], cells.iloc[-1]):
        ends.append((signed(row["gain"]), f"({looks.label(row['recipe'])}, n = {row['n']})"))
    small = own[own["p"] < 0.05]
    family = small["recipe"].isin(["ties", "ties_sb"]).sum()
    top = own.sort_values("gain").iloc[-1]
    once = merged.drop_duplicates(["subset", "recipe"])
    training = yaml.safe_load((ROOT / "config/experts.yaml").read_text())["sets"]["small"]
    training = training["training"]
    tokens = training["steps"] * training["batch"] * training["tokens"]
    return [
        f"{len(merged)} merges of {merged['subset'].nunique()} subsets",
        f"{asked['questions'].sum()} questions of {len(asked)} benchmarks",
        f"{len(singles)} experts",
        f"{tokens:,} tokens each",
        f"The base scores {100 * base['accuracy']:.1f} %",
        f"{once['merge_seconds'].sum() / 3600:.1f} core-hours of merging",
        f"{merges['evaluate_seconds'].sum() / 3600:.1f} of evaluating",
        f"{narrower:.0f} % narrower",
        f"between {ends[0][0]} points {ends[0][1]} and {ends[1][0]} {ends[1][1]}",
        f"{(own['gain'] > 0).sum()} of {len(own)} merges above the base",
        f"{(own['verdict'] == 'above').sum()} are significantly above and "
        f"{(own['verdict'] == 'below').sum()} below",
        f"the {len(small)} with an uncorrected p below 0.05, {family} are of TIES or TIES + SB",
        f"the largest gain of a merge is {signed(top['gain'])} points "
        f"({interval(top['low'], top['high'])})",
        f"`{most['subset']}`, by {signed(most['gain'])} points; "
        f"{(merged['gain_over_best'] > 0).sum()} of {len(merged)} merges score above it",
    ]


def test_every_number_is_told_by_the_data(section, frames):
    prose = (line for line in section.splitlines() if not line.startswith("|"))
    text = " ".join(" ".join(prose).split())
    for phrase in told(frames):
        assert phrase in text, phrase
        text = text.replace(phrase, "")
    text = re.sub(r"\]\([^)]*\)|<img[^>]*>|`[^`]*`", "", text)
    names = ("SmolLM2-135M", "Figure 1", "95 %", "5 %", "4 bits", "release 0.1")
    for name in names:
        text = text.replace(name, "")
    assert not re.findall(r"\d[\d.,]*", text)
