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
        base, best = rows.loc[recipe, "base"], rows.loc[recipe, "best"]
        cells = [
            looks.label(recipe),
            signed(base["gain"]),
            interval(base["questions_low"], base["questions_high"]),
            interval(base["draws_low"], base["draws_high"]),
            base["verdict"],
            percent(base["share"]),
            f"{percent(base['share_above'])} / {percent(base['share_below'])}",
            signed(best["gain"]),
            best["verdict"],
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
    split = comparisons[comparisons["reference"] == "best"]["reference_model"].unique()
    assert len(split) == 1
    answers = frames["answers"].set_index("reference")
    assert (answers.loc["best", "gain"] > 0).all()
    assert (answers.loc["base", "draws_low"] > 0).all()
    narrower = 100 * (1 - comparisons["width_to_unpaired"].median())
    cells = frames["intervals"].query("reference == 'base' and n > 1")
    cells = cells.set_index(["recipe", "n"])["gain"]
    least, most_n = cells["ties", 2], cells["model_stock", 10]
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
        f"from {signed(least)} points (TIES, n = 2) to {signed(most_n)} (Model Stock, n = 10)",
        f"{(own['gain'] > 0).sum()} of {len(own)} merges above the base",
        f"{(own['verdict'] == 'above').sum()} are significantly above and "
        f"{(own['verdict'] == 'below').sum()} below",
        f"{(own['p'] < 0.05).sum()} have an uncorrected p below 0.05",
        f"the largest gain of a merge is {signed(top['gain'])} points "
        f"({interval(top['low'], top['high'])})",
        f"`{most['subset']}` by {signed(most['gain'])} points",
        f"`{split[0]}`",
    ]


def test_every_number_is_told_by_the_data(section, frames):
    prose = (line for line in section.splitlines() if not line.startswith("|"))
    text = " ".join(" ".join(prose).split())
    for phrase in told(frames):
        assert phrase in text, phrase
        text = text.replace(phrase, "")
    text = re.sub(r"\]\([^)]*\)|<img[^>]*>|`[^`]*`", "", text)
    names = ("SmolLM2-135M", "Figure 1", "95 %", "5 %", "4 bits")
    for name in names:
        text = text.replace(name, "")
    assert not re.findall(r"\d[\d.,]*", text)
