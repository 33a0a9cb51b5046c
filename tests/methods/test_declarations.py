"""What methods declare of themselves, and what follows from it."""

import subprocess
import sys
from dataclasses import replace

import pytest
import yaml
from project import ROOT
from wildmerge import WildmergeError
from wildmerge.methods import METHODS, Parameter, check, schema
from wildmerge.validation import validate

SHEET = yaml.safe_load((ROOT / "config/recipes.yaml").read_text())
OWN = {n: r | {"name": n} for n, r in SHEET.items() if r["merge_method"] in METHODS}


def test_the_declarations_need_no_torch():
    """The DAG is built from them, on a login node, in seconds."""
    code = "import sys, wildmerge.study, wildmerge.methods; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_methods_stand_in_the_papers_order():
    plain = ["task_arithmetic", "model_stock", "ties_hashed"]
    subspace = ["task_arithmetic_sb", "ties_sb", "tsv_m", "iso_c"]
    assert list(METHODS)[:7] == plain + subspace


def test_no_two_methods_look_the_same():
    looks = [method.look for method in METHODS.values() if method.look]
    assert len({look.colour for look in looks}) == len(looks)
    assert len({look.marker for look in looks}) == len(looks)


def test_a_scale_comes_with_its_arithmetic():
    for method in METHODS.values():
        assert bool(method.scale) == (method.unscaled is not None)
        assert set(method.scale) <= set(method.parameters)


def test_the_schema_holds_every_method_and_the_sheet_obeys_it():
    named = schema()["additionalProperties"]["properties"]["merge_method"]["anyOf"][0]["enum"]
    assert named == list(METHODS)
    validate(SHEET, schema(), "config/recipes.yaml")


@pytest.mark.parametrize("recipe", OWN.values(), ids=OWN)
def test_parameters_are_checked_against_the_declaration(recipe):
    check(recipe)
    with pytest.raises(WildmergeError, match="densty"):
        check(recipe | {"parameters": recipe["parameters"] | {"densty": 1}})
    for parameter in recipe["parameters"]:
        others = {k: v for k, v in recipe["parameters"].items() if k != parameter}
        if METHODS[recipe["merge_method"]].parameters[parameter].default is None:
            with pytest.raises(WildmergeError, match=parameter):
                check(recipe | {"parameters": others})
        with pytest.raises(WildmergeError, match=parameter):
            check(recipe | {"parameters": recipe["parameters"] | {parameter: "much"}})


def test_bounds_of_a_parameter():
    number = Parameter("A share; 0 to 1.", above=0, maximum=1)
    validate(1, number.schema, "here")
    for wrong in (0, 1.5, "a"):
        with pytest.raises(WildmergeError, match="A share"):
            validate(wrong, number.schema, "here")
    assert replace(number, choices=("sum", "mean")).schema["enum"] == ["sum", "mean"]


def test_the_rank_tolerance_is_that_of_the_factorisations():
    """Declared beside the method, which loads no torch, and used where torch is."""
    from wildmerge.methods import tsv_m
    from wildmerge.tensors import spectral

    assert tsv_m.RANK_TOLERANCE == spectral.RANK_TOLERANCE
