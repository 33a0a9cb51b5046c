"""Figures and tables declare themselves; what is declared wrongly is refused in clear words."""

from pathlib import Path

import pytest
from project import ROOT
from wildmerge import WildmergeError
from wildmerge.study import catalogue, sheets

GOOD = 'import numpy\nINPUTS = ("merges", "intervals")\nCAPTION = """\nGains\nby n.\n"""\n'


def test_declarations_are_read_without_importing():
    declared = catalogue.read_declaration(GOOD, "here.py")
    assert declared == catalogue.Declaration(("merges", "intervals"), "Gains by n.")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ('CAPTION = "x"', r"here\.py: a line `INPUTS = \.\.\.` with a plain literal"),
        ('INPUTS = ("merges",)', "a line `CAPTION = "),
        ('INPUTS = tuple(["merges"])\nCAPTION = "x"', "a line `INPUTS = "),
        ('INPUTS = "merges"\nCAPTION = "x"', "INPUTS was expected to be a tuple"),
        ('INPUTS = ("merge",)\nCAPTION = "x"', "found 'merge'. Known are scores, merges"),
        ('INPUTS = ("published/",)\nCAPTION = "x"', "found 'published/'"),
        ('INPUTS = ("merges",)\nCAPTION = " "', "CAPTION was expected to be a text"),
    ],
)
def test_a_wrong_declaration_is_refused(source, says):
    with pytest.raises(WildmergeError, match=says):
        catalogue.read_declaration(source, "here.py")


def test_files_follow_from_the_declaration():
    found = catalogue.input_files("tables", "success_rate", "wild", ["a", "b"], Path("/home"))
    assert found == {
        "merges": ["results/studies/wild/merges.csv"],
        "published": ["/home/config/published/table1.csv", "/home/config/published/table3.csv"],
    }
    found = catalogue.input_files("figures", "cosines", "wild", ["a", "b"], Path("/home"))
    assert found == {"similarity": [f"results/task_vectors/{b}/similarity.npz" for b in "ab"]}
    assert catalogue.asks_for({"figures": ["signs"], "tables": []}, "similarity")
    assert not catalogue.asks_for({"figures": ["norm_by_n"], "tables": []}, "similarity")


@pytest.mark.parametrize("kind", catalogue.KINDS)
def test_a_study_with_a_figure_or_table_that_does_not_exist_is_refused(project, kind):
    path = project.folder / "config/studies/pico.yaml"
    path.write_text(path.read_text().replace(f"{kind}:\n", f"{kind}:\n- nonesuch\n"))
    known = catalogue.names(kind)[0]
    says = rf"pico\.yaml, {kind}: one of the {kind} that exist .* 'nonesuch'\. Known are {known}"
    with pytest.raises(WildmergeError, match=says):
        sheets.load(project.folder / "config", ROOT / "workflow/schemas")
