"""`wildmerge missing`: what was begun and failed is found, with its reason, and written down."""

import shutil
from pathlib import Path

import pytest
import yaml
from project import ROOT, models_sheet
from wildmerge import WildmergeError
from wildmerge.cli import main, missing
from wildmerge.files import write_json
from wildmerge.home import home
from wildmerge.study import Needs, paths, sheets

CHECKPOINTS = ["ann", "bob", "cat", "dan"]
STUDY = """\
# What is asked.
description: Every pair.
bases: [b]
pool: wild  # all of them
sizes: [2]
draws: 6
recipes: [ties, tsv_m]
suites: [small]
figures: []

tables: []
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose study has run as far as it could: `dan` is refused, a merge failed."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    shutil.rmtree(tmp_path / "config/studies")
    rows = [{"base": "b", "model": "base", "repo": "dir:b", "gb": "1"}]
    rows += [{"base": "b", "model": m, "repo": f"dir:{m}", "pool": "wild"} for m in CHECKPOINTS]
    (tmp_path / "config/models.tsv").write_text(models_sheet(rows))
    study = tmp_path / "config/studies/mine.yaml"
    study.parent.mkdir()
    study.write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    for model in CHECKPOINTS:
        reasons = ["3 tensors are missing, lm_head.weight among them"] if model == "dan" else []
        write_json(paths.verdict("b", model), {"reasons": reasons})
        if not reasons:
            write_json(paths.admitted("b", model), {})
    for row in needs().planned("mine"):
        if "dan" not in row["members"]:
            write_json(row["scores"], {})
    failed = next(r for r in needs().planned("mine") if r["members"] == ["ann", "bob"])
    Path(failed["scores"]).unlink()
    log = Path(f"logs/merge/b/{failed['subset']}/ties.log")
    log.parent.mkdir(parents=True)
    log.write_text(f"tensor 3\n\nmerge b/{failed['subset']}/ties: NaN was found.\nLog: /x/y.log\n")
    return study, f"b/{failed['subset']}/ties"


def needs() -> Needs:
    return Needs(sheets.load(Path("config"), home() / "workflow/schemas"), paths.Scratch())


def test_what_failed_is_printed_and_written(project, capsys):
    study, failed = project
    expected = {
        "b/dan": "refused: 3 tensors are missing, lm_head.weight among them",
        failed: "NaN was found.",
    }
    assert main.main(["missing", "mine"]) == 0
    said = capsys.readouterr().out
    assert yaml.safe_load(said.partition("\n\n")[0])["missing"] == expected
    assert "5 of 12 planned scores of merges are left" in said and study.read_text() == STUDY

    assert main.main(["missing", "mine", "--write"]) == 0
    assert study.read_text().startswith(STUDY)
    assert yaml.safe_load(study.read_text())["missing"] == expected
    rows = {r["subset"]: r["missing"] for r in needs().planned("mine") if r["recipe"] == "ties"}
    assert sum(bool(why) for why in rows.values()) == 4
    wanted = needs().outcomes("mine", "scores")
    assert len(wanted) == 1 + 3 + 5 and not any("dan" in path for path in wanted)
    assert needs().study_checkpoints("mine") == {"b": ["ann", "bob", "cat"]}
    # What the preflight looks at.
    assert [row["model"] for row in needs().study_models("mine")] == ["base", "ann", "bob", "cat"]
    assert "results/task_vectors/b/dan.json" not in needs().study_verdicts("mine")

    # A second failure is added, and what stands there is kept.
    Path(needs().planned("mine")[1]["scores"]).unlink()
    capsys.readouterr()
    assert main.main(["missing", "mine", "--write"]) == 0
    assert "1 that no job has begun yet, b/ann/identity" in capsys.readouterr().out
    assert main.main(["missing", "mine", "--write", "--all"]) == 0
    added = {"b/ann/identity": "no job of it has begun"}
    assert yaml.safe_load(study.read_text())["missing"] == expected | added
    assert study.read_text().startswith(STUDY)


def test_what_merges_share_does_not_hang_on_what_is_missing(project):
    """A merge that read factors of its experts would else be made again by other means."""
    study, (_, subset, _) = project[0], project[1].split("/")
    study.write_text(STUDY.replace("sizes: [2]", "sizes: [2, 3]"))
    before = needs().factors("b", subset, "tsv_m")
    assert len(before) == 2
    study.write_text(study.read_text() + "missing: {b/dan: gone}\n")
    left = [r for r in needs().planned("mine") if "ann" in r["members"] and not r["missing"]]
    assert sum(row["recipe"] == "tsv_m" for row in left) < 5
    assert needs().factors("b", subset, "tsv_m") == before


def test_a_base_without_scores_is_no_gap(project):
    Path(paths.scores("b", "base", "identity", "small")).unlink()
    with pytest.raises(WildmergeError, match="of b itself were expected"):
        missing.find(needs(), "mine")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a: 1\nmissing: {x: y}\n# of b\nb: 2", "a: 1\nmissing:\n  n: why\n# of b\nb: 2\n"),
        (
            "missing:\n  x: y\n\n  z: >-\n    long\n\n# b\nb: 2\n",
            "missing:\n  n: why\n\n# b\nb: 2\n",
        ),
        ("# missing: {}\na: 1\n", "# missing: {}\na: 1\nmissing:\n  n: why\n"),
    ],
)
def test_the_rest_of_the_file_stays_to_the_letter(before, after):
    assert missing.with_key(before, "missing", {"n": "why"}, "x.yaml") == after


def test_a_file_that_is_written_otherwise_is_left_alone():
    with pytest.raises(WildmergeError, match="by hand"):
        missing.with_key("{a: 1, missing: {x: y}}\n", "missing", {"n": "why"}, "x.yaml")
