"""The plan of study `twelve` against the files that it speaks of."""

import json
import math
import re

import pytest
import yaml
from project import ROOT

PLAN = (ROOT / "docs/twelve/plan.md").read_text(encoding="utf-8")
SUITES = yaml.safe_load((ROOT / "config/suites.yaml").read_text(encoding="utf-8"))
SCREENED = json.loads((ROOT / "docs/twelve/screening.json").read_text(encoding="utf-8"))["tasks"]


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    section = PLAN.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_screening_is_what_was_measured():
    asked = []
    for task, metric, questions, chance, base, errors, verdict in rows("Questions"):
        found = SCREENED[task]
        value, count = found["value"], found["questions"]
        guess = 1 / 3 if chance == "33.3" else float(chance) / 100
        above = (value - guess) / math.sqrt(value * (1 - value) / count)
        assert (found["metric"], str(count)) == (metric, questions)
        assert f"{100 * value:.1f}" == base
        assert float(errors) == pytest.approx(above, abs=0.06)
        assert (verdict == "yes") == (above > 3)
        asked += [task] if verdict == "yes" else []
    assert len(rows("Questions")) == len(SCREENED) == len(SUITES["screening"]["tasks"])
    assert set(asked) == set(SUITES["twelve"]["tasks"])
    total = sum(task["questions"] for task in SCREENED.values())
    assert f"Screened on {total:,} questions" in PLAN


def test_what_can_be_seen_follows_from_the_numbers_of_questions():
    counts = [int(n.replace(",", "")) for n in re.findall(r"1,700|\b800\b|1,538", PLAN)[:3]]
    assert counts == [1700, 1000 - 200, 1838 - 300]
    assert SUITES["twelve"]["tasks"]["arc_easy"]["questions"] == counts[0]
    variance = sum(1 / count for count in counts) / len(counts) ** 2
    assert f"{round(1 / variance, -1):,.0f} questions of one task" in PLAN
    assert f"{100 * math.sqrt(0.1 * variance):.2f} points" in PLAN
    power = 0.8416
    mean = math.sqrt(0.6 + 0.4 / 16)  # of 16 merges with correlation .6
    for (_, alone, holm), churn, part in zip(
        rows("What can be seen"), (0.1, 0.1, 0.2), (1, mean, mean), strict=True
    ):
        error = 100 * math.sqrt(churn * variance) * part
        assert float(alone) == pytest.approx((1.9600 + power) * error, abs=0.011)
        assert float(holm) == pytest.approx((2.6901 + power) * error, abs=0.011)
    assert float(rows("What can be seen")[1][1]) <= 1.5
