"""The sheets of config/: what is wrong is said with the place and the way out."""

import shutil

import pytest
import yaml
from project import ROOT, models_sheet
from wildmerge import WildmergeError
from wildmerge.files import write_json
from wildmerge.study.sheets import load

SCHEMAS = ROOT / "workflow/schemas"
HASH = "0123456789abcdef0123456789abcdef01234567"
BASE = {"base": "b", "model": "base", "repo": "owner/base", "revision": HASH, "gb": "1"}
ROWS = [BASE] + [
    {"base": "b", "model": m, "repo": f"owner/{m}", "revision": HASH, "pool": "wild", "domain": "x"}
    for m in ("one", "two", "three")
]
STUDY = {
    "description": "A study.",
    "bases": ["b"],
    "pool": "wild",
    "sizes": [2],
    "draws": 2,
    "recipes": ["ties"],
    "suites": ["paper"],
    "figures": [],
    "tables": [],
}


@pytest.fixture
def config(tmp_path):
    """A config/ of one base, three checkpoints and one study."""
    folder = tmp_path / "config"
    (folder / "studies").mkdir(parents=True)
    for name in ("config.yaml", "experts.yaml", "recipes.yaml", "suites.yaml"):
        shutil.copy(ROOT / "config" / name, folder)
    (folder / "models.tsv").write_text(models_sheet(ROWS))
    (folder / "studies/mine.yaml").write_text(yaml.safe_dump(STUDY))
    return folder


def refused(config) -> str:
    with pytest.raises(WildmergeError) as error:
        load(config, SCHEMAS)
    assert "\n" not in str(error.value).strip()
    return str(error.value)


def test_sheets_are_read(config):
    sheets = load(config, SCHEMAS)
    assert list(sheets.studies) == ["mine"]
    assert sheets.members["b", "n02-01"] != sheets.members["b", "n02-02"]
    assert sheets.recipes["ties"]["parameters"]["density"] == 0.1


def test_the_lock_fills_empty_revisions_and_no_others(config):
    other = HASH[::-1]
    rows = [ROWS[0], ROWS[1] | {"revision": ""}, *ROWS[2:]]
    (config / "models.tsv").write_text(models_sheet(rows))
    lock = {f"owner/{m}": {"revision": other, "files": {}} for m in ("one", "two")}
    write_json(config / "models.lock.json", lock)
    models = load(config, SCHEMAS).models
    assert models["b", "one"]["revision"] == other
    assert models["b", "two"]["revision"] == HASH


def test_two_rows_of_one_name(config):
    (config / "models.tsv").write_text(models_sheet([*ROWS, ROWS[2]]))
    said = refused(config)
    assert "models.tsv, line 6" in said
    assert "b/two, which line 4 has already" in said


def test_a_revision_that_is_no_hash(config):
    (config / "models.tsv").write_text(models_sheet([BASE, ROWS[1] | {"revision": "main"}]))
    said = refused(config)
    assert "models.tsv, line 3, at revision" in said
    assert "'main'" in said


def test_a_checkpoint_without_its_base(config):
    (config / "models.tsv").write_text(models_sheet(ROWS[1:]))
    assert "a row `b` with model `base` was expected" in refused(config)


def test_a_row_with_a_tab_too_many(config):
    sheet = (config / "models.tsv").read_text().rstrip("\n")
    (config / "models.tsv").write_text(sheet + "\tmore\tand more\n")
    assert "divided by single tabs" in refused(config)


def test_an_unknown_key_is_told_with_the_known_ones(config):
    (config / "studies/mine.yaml").write_text(yaml.safe_dump(STUDY | {"drawss": 3}))
    said = refused(config)
    assert "mine.yaml" in said
    assert "'drawss' was unexpected" in said
    assert "draws" in said.split("Known keys here:")[1]


def test_a_study_whose_name_is_no_target(config):
    (config / "studies/mine.yaml").rename(config / "studies/My Study.yaml")
    assert "its name is a target" in refused(config)


def test_two_studies_that_mean_different_things_by_one_name(config):
    other = STUDY | {"models": ["one", "three"], "draws": 1, "prefix": ""}
    del other["pool"]
    (config / "studies/other.yaml").write_text(yaml.safe_dump(other | {"recipes": ["tsv_m"]}))
    first = load_or_refusal(config)
    assert "expected to mean the same checkpoints in all studies" in first


def test_two_studies_that_name_their_models_do_not_collide(config):
    (config / "studies/mine.yaml").unlink()
    for name, models in (("a", ["one", "two"]), ("b", ["one", "three"]), ("c", ["three", "one"])):
        study = {key: value for key, value in STUDY.items() if key != "pool"} | {"models": models}
        (config / f"studies/{name}.yaml").write_text(yaml.safe_dump(study))
    sheets = load(config, SCHEMAS)
    drawn = {
        name: {e.subset for e in rows if e.is_merge} for name, rows in sheets.evaluations.items()
    }
    # The same list is the same merges, in whatever order it is written.
    assert drawn["a"].isdisjoint(drawn["b"]) and drawn["b"] == drawn["c"]


def test_the_demo_keeps_the_names_of_its_draws():
    sheets = load(ROOT / "config", SCHEMAS)
    drawn = {e.subset for e in sheets.evaluations["demo"] if e.is_merge}
    assert drawn == {"n02-01", "n03-01"}


def load_or_refusal(config) -> str:
    """The refusal of two studies that clash; they must, whichever pair is drawn first."""
    drawn = yaml.safe_load((config / "studies/other.yaml").read_text())
    for pair in (["one", "two"], ["one", "three"], ["two", "three"]):
        (config / "studies/other.yaml").write_text(yaml.safe_dump(drawn | {"models": pair}))
        try:
            load(config, SCHEMAS)
        except WildmergeError as error:
            return str(error)
    return "no refusal"


def test_yaml_that_is_none(config):
    (config / "recipes.yaml").write_text("ties: {label: [\n")
    with pytest.raises(WildmergeError, match=r"recipes.yaml, line 2, .*valid YAML was expected"):
        load(config, SCHEMAS)
