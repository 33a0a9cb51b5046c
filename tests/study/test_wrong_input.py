"""Wrong input, a table: each is refused before any job, with what, where, and what to do.

Most cases are held against the loader of the sheets, which is what a dry run does first; some drive
`snakemake` or `wildmerge` themselves.
"""

import shutil

import pytest
import yaml
from project import ROOT, make_project, models_sheet, wildmerge
from test_sheets import BASE, HASH, ROWS, SCHEMAS, STUDY
from wildmerge import WildmergeError
from wildmerge.files import write_json
from wildmerge.study import Needs, check_tasks, load_experts, paths, sheets
from wildmerge.validation import read_yaml, validate

CONFIG = {"studies": ["mine"], "merge_dtype": "bfloat16", "backend": "hf", "batch_size": 1}
TIES = {
    "label": "TIES",
    "merge_method": "ties_hashed",
    "parameters": {"combine": "mean", "density": 0.1, "lambda": 0.1},
    "version": 1,
}
PIQA = {"metric": "acc", "num_fewshot": 0}
SHEETS = ("config.yaml", "experts.yaml", "recipes.yaml", "suites.yaml")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A config/ of one base, three checkpoints and one study, with nothing wrong."""
    folder = tmp_path_factory.mktemp("template") / "config"
    (folder / "studies").mkdir(parents=True)
    shutil.copy(ROOT / "config/experts.yaml", folder)
    shutil.copy(ROOT / "config/recipes.yaml", folder)
    shutil.copy(ROOT / "config/suites.yaml", folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "models.tsv").write_text(models_sheet(ROWS))
    (folder / "studies/mine.yaml").write_text(yaml.safe_dump(STUDY))
    return folder


def read_all(config):
    """Read the sheets as workflow/rules/common.smk does."""
    sheets.check_folder(config)
    choices = read_yaml(config / "config.yaml")
    schema = read_yaml(SCHEMAS / "config.schema.yaml")
    validate(choices, schema, str(config / "config.yaml"))
    loaded = sheets.load(config, SCHEMAS)
    check_tasks(loaded.suites, str(config / "suites.yaml"))
    load_experts(config, SCHEMAS, loaded.models)
    needs = Needs(loaded, paths.Scratch())
    needs.chosen(choices["studies"], str(config / "config.yaml"))
    return loaded


def text(name, content):
    """Write a sheet."""

    def change(config):
        (config / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def edit(name, *pairs):
    """Replace words of a sheet."""

    def change(config):
        written = (config / name).read_text()
        for old, new in pairs:
            assert old in written
            written = written.replace(old, new, 1)
        (config / name).write_text(written)

    return change


def study(name="mine", without=(), **changes):
    """Write a study that differs from one with nothing wrong."""
    entry = {key: value for key, value in (STUDY | changes).items() if key not in without}
    return text(f"studies/{name}.yaml", yaml.safe_dump(entry))


def rows(*changed):
    """Write models.tsv with these rows after the base."""
    return text("models.tsv", models_sheet([BASE, *changed]))


def row(**changes):
    """One row, in the place of checkpoint `one`."""
    return rows(ROWS[1] | changes, *ROWS[2:])


def suite(**changes):
    """Write a suite that differs from one with nothing wrong."""
    entry = {"description": "d", "source": "hub", "dtype": "float16", "tasks": {"piqa": PIQA}}
    return text("suites.yaml", yaml.safe_dump({"paper": entry | changes}))


def task(task="piqa", **changes):
    """The same with one task."""
    return suite(tasks={task: PIQA | changes})


def packaged(**changes):
    """The same, the questions out of a package."""
    source = {"package": "p", "version": "1", "sha256": "0" * 64}
    return suite(source=source, tasks={"arc_easy": PIQA | changes})


def recipe(**changes):
    """Write recipes.yaml with one recipe."""
    return text("recipes.yaml", yaml.safe_dump({"ties": TIES | changes}))


def parameters(**changes):
    """The same with other parameters."""
    return recipe(parameters=TIES["parameters"] | {k.rstrip("_"): v for k, v in changes.items()})


def sweep(**values):
    """A study that sweeps TIES."""
    swept = [{"recipe": "ties", "parameters": {k.rstrip("_"): v for k, v in values.items()}}]
    return study(sweeps=swept, recipes=[])


def locked_alike(config):
    """Two repositories with the same file of weights, in a study that refuses that."""
    study(duplicates="refuse")(config)
    files = {"model.safetensors": [8, "f" * 64]}
    entry = {"revision": HASH, "license": "", "files": files}
    write_json(config / "models.lock.json", {"owner/one": entry, "owner/three": entry})


HEADER = "\t".join(["base", "model", "repo", "revision", "pool", "domain", "gb", "note", "admit"])
TWIN = ROWS[1] | {"model": "twin"}
WIDE = "1" + "0" * 400  # beyond what a float holds

# What is wrong, in the words of its id; where it stands; what was expected; what was found.
CASES = {
    # What a study goes on without.
    "a missing checkpoint that is none of the study's": (
        study(missing={"b/four": "gone"}),
        "mine.yaml, missing",
        "BASE/CHECKPOINT",
        "b/four",
    ),
    "a missing merge that is not planned": (
        study(missing={"b/n03-01/ties": "failed"}),
        "mine.yaml, missing",
        "BASE/SUBSET/RECIPE",
        "b/n03-01/ties",
    ),
    "a missing base": (study(missing={"b/base": "x"}), "mine.yaml, missing", "BASE/C", "b/base"),
    "a base's missing score": (
        study(missing={"b/base/identity": "x"}),
        "mine.yaml, missing",
        "BASE/SUBSET",
        "b/base/identity",
    ),
    "nothing left to compare": (
        study(missing={"b/one": "x", "b/two": "x"}),
        "mine.yaml, missing",
        "one merge at least",
        "none of 2",
    ),
    "a missing checkpoint without a reason": (
        study(missing={"b/one": ""}),
        "mine.yaml, at missing",
        "Why it is missing",
        "should be non-empty",
    ),
    "missing checkpoints as a list": (
        study(missing=["b/one"]),
        "mine.yaml, at missing",
        "goes on without",
        "not of type 'object'",
    ),
    "without a checkpoint that is none of the study's": (
        text("studies/mine.yaml", yaml.safe_dump(STUDY | {"without": ["b/four"]})),
        "mine.yaml, without",
        "would draw from",
        "b/four",
    ),
    "without a name that lacks its base": (
        text("studies/mine.yaml", yaml.safe_dump(STUDY | {"without": ["one"]})),
        "mine.yaml, at without",
        "BASE/CHECKPOINT",
        "'one'",
    ),
    # models.tsv
    "an empty models.tsv": (text("models.tsv", ""), "models.tsv, line 1", "columns", "found none"),
    "a header and no row": (text("models.tsv", HEADER + "\n"), "models.tsv", "a base", "no line"),
    "spaces for tabs everywhere": (
        text("models.tsv", HEADER.replace("\t", "  ") + "\nb  base  owner/base\n"),
        "models.tsv, line 1",
        "divided by single tabs",
        "found no tab",
    ),
    "commas for tabs": (
        text("models.tsv", HEADER.replace("\t", ",") + "\nb,base,owner/base\n"),
        "models.tsv, line 1",
        "divided by single tabs",
        "found no tab",
    ),
    "spaces for tabs in one row": (
        text("models.tsv", models_sheet(ROWS) + f"b four owner/four {HASH} wild\n"),
        "models.tsv, line 6",
        "divided by single tabs",
        "'b four owner/four",
    ),
    "a column too few": (
        text("models.tsv", models_sheet(ROWS).replace("\tadmit\n", "\n", 1)),
        "models.tsv, line 1",
        "admit were expected",
        "without 'admit'",
    ),
    "a column that is unknown": (
        text("models.tsv", models_sheet(ROWS).replace("\tnote\t", "\tremark\t", 1)),
        "models.tsv, line 1",
        "note, admit were expected",
        "unknown 'remark'",
    ),
    "a column twice": (
        text("models.tsv", models_sheet(ROWS).replace("\tnote\t", "\tpool\t", 1)),
        "models.tsv, line 1",
        "were expected",
        "twice with 'pool'",
    ),
    "a tab too many": (
        text("models.tsv", models_sheet(ROWS).rstrip("\n") + "\tx\ty\n"),
        "models.tsv, line 5",
        "as many columns",
        "found more",
    ),
    "models.tsv in Latin-1": (
        text("models.tsv", models_sheet([*ROWS[:3], ROWS[3] | {"note": "é"}]).encode("latin-1")),
        "models.tsv, line 5",
        "UTF-8 was expected",
        "0xe9",
    ),
    "a row twice": (rows(*ROWS[1:], ROWS[1]), "models.tsv, line 6", "its own", "b/one"),
    "a checkpoint without its base": (
        text("models.tsv", models_sheet(ROWS[1:])),
        "models.tsv, line 2",
        "a row `b` with model `base`",
        "found none",
    ),
    "a branch as the revision": (row(revision="main"), "line 3, at revision", "commit", "'main'"),
    "an unknown source": (row(repo="s3:bucket"), "line 3, at repo", "a source", "'s3:bucket'"),
    "no repository": (row(repo=""), "line 3, at repo", "Where it comes from", "''"),
    "a repository without owner": (row(repo="one"), "line 3, at repo", "owner/name", "'one'"),
    "capitals in a name": (row(model="One"), "line 3, at model", "Short name", "'One'"),
    "a checkpoint named like a draw": (row(model="n02-01"), "at model", "a draw", "'n02-01'"),
    "pools divided by commas": (row(pool="wild,mine"), "at pool", "divided by `;`", "'wild,mine'"),
    "a base without its size": (
        text("models.tsv", models_sheet([BASE | {"gb": ""}, *ROWS[1:]])),
        "line 2, at gb",
        "size in 10^9 bytes",
        "''",
    ),
    "a size in words": (
        text("models.tsv", models_sheet([BASE | {"gb": "6 GB"}, *ROWS[1:]])),
        "line 2, at gb",
        "10^9 bytes",
        "'6 GB'",
    ),
    "a size of a checkpoint": (row(gb="1"), "line 3, at gb", "base's row", "'1'"),
    "an expert that is not known": (
        row(repo="trained:nobody", revision=""),
        "b/one",
        "experts.yaml was expected",
        "trained:nobody",
    ),
    # Studies
    "an empty study": (text("studies/mine.yaml", ""), "mine.yaml", "config/studies", "required"),
    "a study that is a list": (text("studies/mine.yaml", "- b\n"), "mine.yaml", "object", "['b']"),
    "a study in Latin-1": (
        text("studies/mine.yaml", "# one\ndescription: é\n".encode("latin-1")),
        "mine.yaml, line 2",
        "UTF-8 was expected",
        "0xe9",
    ),
    "a tab in YAML": (
        text("studies/mine.yaml", "bases:\n\t- b\n"),
        "mine.yaml, line 2",
        "valid YAML",
        "'\\t'",
    ),
    "a key twice": (
        text("studies/mine.yaml", yaml.safe_dump(STUDY) + "draws: 3\n"),
        "mine.yaml",
        "'draws' was expected once",
        "lines 4 and",
    ),
    "a key twice, deeper": (
        text(
            "studies/mine.yaml", yaml.safe_dump(STUDY) + "groups: {g: {domains: [x], domains: [y]}}"
        ),
        "mine.yaml",
        "'domains' was expected once",
        "lines",
    ),
    "an unknown key": (study(drawss=3), "mine.yaml", "Known keys here", "'drawss'"),
    "no description": (study(without=["description"]), "mine.yaml", "config/studies", "required"),
    "pool and models": (study(models=["one", "two"]), "mine.yaml", "config/studies", "valid"),
    "a size of one": (study(sizes=[1]), "sizes.0", "Numbers of checkpoints", "1 is less"),
    "a size with a point": (study(sizes=[2.0]), "sizes.0", "whole number", "found 2.0"),
    "sizes in words": (study(sizes=["two"]), "sizes.0", "integer", "'two'"),
    "a size twice": (study(sizes=[2, 2]), "at sizes", "Numbers of checkpoints", "non-unique"),
    "a size beyond the pool": (study(sizes=[4]), "mine.yaml", "sizes up to 3", "found 4"),
    "draws that are half": (study(draws=1.5), "at draws", "whole number", "found 1.5"),
    "draws that are true": (study(draws=True), "at draws", "integer", "True"),
    "sizes without draws": (study(without=["draws"]), "mine.yaml", "config/studies", "'draws'"),
    "an unknown base": (study(bases=["lama"]), "mine.yaml", "a base of", "found 'lama'"),
    "an unknown pool": (study(pool="wilde"), "mine.yaml", "pool 'wilde'", "none was found"),
    "an unknown checkpoint": (
        study(without=["pool"], models=["one", "four"]),
        "mine.yaml",
        "a checkpoint of b",
        "found 'four'",
    ),
    "an unknown recipe": (study(recipes=["dare"]), "mine.yaml", "a recipe of", "found 'dare'"),
    "an unknown suite": (study(suites=["papr"]), "mine.yaml", "a suite of", "found 'papr'"),
    "an unknown figure": (study(figures=["bars"]), "mine.yaml", "figures that exist", "'bars'"),
    "an unknown table": (study(tables=["all"]), "mine.yaml", "tables that exist", "'all'"),
    "no suites": (study(without=["suites"]), "mine.yaml", "`suites` was expected", "found none"),
    "no suites in a list": (study(suites=[]), "mine.yaml", "`suites` was expected", "found none"),
    "recipes and no subsets": (
        study(without=["sizes", "draws"]),
        "mine.yaml",
        "`sizes` (with `draws`) or `groups`",
        "found neither",
    ),
    "subsets and no recipes": (
        study(without=["recipes"]),
        "mine.yaml",
        "`recipes` or `sweeps`",
        "found neither",
    ),
    "a group of one checkpoint": (
        study(groups={"g": {"domains": ["math"]}}),
        "group 'g'",
        "at least two",
        "found 0",
    ),
    "a study named like a rule": (study("merge"), "merge.yaml", "no rule", "found merge"),
    "a study named all": (study("all"), "all.yaml", "no rule", "found all"),
    "a study named in capitals": (study("Mine"), "Mine.yaml", "lower case", "target"),
    "two studies that mean different things": (
        study("other", without=["pool"], models=["one", "three"], sizes=[2], draws=1, prefix=""),
        "other.yaml",
        "the same checkpoints in all studies",
        "found other members",
    ),
    "the same checkpoint twice, refused": (
        lambda config: (study(duplicates="refuse")(config), rows(*ROWS[1:], TWIN)(config)),
        "mine.yaml",
        "checkpoints that differ",
        "b/one and b/twin",
    ),
    "the same weights twice in the lock, refused": (
        locked_alike,
        "mine.yaml",
        "checkpoints that differ",
        "b/one and b/three",
    ),
    # Sweeps and recipes
    "lambda inf": (parameters(lambda_=float("inf")), "lambda", "finite", "found inf"),
    "lambda nan": (parameters(lambda_=float("nan")), "lambda", "finite", "found nan"),
    "lambda 1e400": (
        edit("recipes.yaml", ("lambda: 0.1", "lambda: 1.0e+400")),
        "lambda",
        "finite",
        "found inf",
    ),
    "lambda 1e-5": (
        edit("recipes.yaml", ("lambda: 0.1", "lambda: 1e-5")),
        "lambda",
        "a number",
        "text '1e-5'",
    ),
    "lambda of 400 digits": (
        edit("recipes.yaml", ("lambda: 0.1", f"lambda: {WIDE}")),
        "lambda",
        "a finite number",
        "401 digits",
    ),
    "a density above 1": (parameters(density=1.5), "density", "Share of each", "1.5 is greater"),
    "a density of zero": (parameters(density=0), "density", "Share of each", "0 is less"),
    "a combination that is none": (parameters(combine="max"), "combine", "`sum`", "'max'"),
    "a parameter missing": (
        recipe(parameters={"combine": "mean"}),
        "recipes.yaml, at ties.parameters",
        "TIES",
        "required",
    ),
    "a parameter too many": (parameters(beta=1), "ties.parameters", "Known keys", "'beta'"),
    "an unknown method": (recipe(merge_method="tie"), "merge_method", "task_arithmetic", "'tie'"),
    "an empty recipes.yaml": (text("recipes.yaml", ""), "mine.yaml", "a recipe of", "'ties'"),
    "a recipe twice": (
        text("recipes.yaml", yaml.safe_dump({"ties": TIES}) + yaml.safe_dump({"ties": TIES})),
        "recipes.yaml",
        "'ties' was expected once",
        "lines 1 and",
    ),
    "a sweep over inf": (sweep(lambda_=[1, float("inf")]), "at sweeps.0.", "finite", "found inf"),
    "a sweep over nan": (sweep(lambda_=[float("nan")]), "at sweeps.0.", "finite", "found nan"),
    "a sweep over 1e400": (sweep(lambda_=["1e400"]), "mine.yaml, sweep", "a number", "'1e400'"),
    "a sweep out of range": (sweep(density=[0.1, 2]), "mine.yaml, sweep", "Share of each", "2 is"),
    "a sweep over words": (sweep(combine=["max"]), "mine.yaml, sweep", "`sum`", "'max'"),
    "a sweep over nothing": (sweep(lambda_=[]), "parameters.lambda", "one entry", "found none"),
    "a sweep over what is none": (sweep(beta=[1]), "mine.yaml, sweep", "a parameter of", "'beta'"),
    "a sweep of points of one name": (
        sweep(lambda_=[0.3, 0.30000001]),
        "mine.yaml, sweep",
        "differ in six digits",
        "ties-lambda0.3",
    ),
    "a sweep beyond paths": (
        sweep(lambda_=[1e20]),
        "mine.yaml, sweep",
        "part of a path",
        "ties-lambda1e+20",
    ),
    # Suites
    "an unknown task": (task("arc_esy"), "suite paper, task arc_esy", "lm-eval", "'arc_esy'"),
    "an unknown member": (task("a", members=["piqa", "pica"]), "task a", "lm-eval", "'pica'"),
    "an empty suites.yaml": (text("suites.yaml", ""), "suites.yaml", "one entry", "found none"),
    "a suite without tasks": (suite(tasks={}), "paper.tasks", "one entry", "found none"),
    "a task twice": (
        text("suites.yaml", "paper:\n  tasks:\n    piqa: {}\n    piqa: {}\n"),
        "suites.yaml, line 4",
        "'piqa' was expected once",
        "lines 3 and 4",
    ),
    "a metric that is none": (task(metric="f 1"), "piqa.metric", "lm-eval's metric", "'f 1'"),
    "an unknown metric": (task(metric="f1"), "task piqa", "a mean over questions", "found 'f1'"),
    "fewer than no examples": (
        task(num_fewshot=-1),
        "num_fewshot",
        "Worked examples",
        "-1 is less",
    ),
    "files without a package": (task(files={"test": "a"}), "piqa.files", "source hub", "'a'"),
    "a package without files": (packaged(), "arc_easy", "Known keys|files", "required"),
    "a wheel without its digest": (
        suite(source={"package": "p", "version": "1"}),
        "paper.source",
        "sha256|Where the questions",
        "valid|required",
    ),
    "examples out of the questions": (
        packaged(num_fewshot=3, files={"validation": "a.arrow"}),
        "suite paper, task arc_easy",
        "another split than the questions",
        "split 'validation'",
    ),
    "examples out of a benchmark's only split": (
        task("truthfulqa_mc1", num_fewshot=3),
        "task truthfulqa_mc1",
        "another split than the questions",
        "split 'validation'",
    ),
    # config.yaml and the folder
    "an empty config.yaml": (
        text("config.yaml", ""),
        "config.yaml",
        "config/config.yaml",
        "required",
    ),
    "an unknown backend": (
        text("config.yaml", yaml.safe_dump(CONFIG | {"backend": "vllm"})),
        "config.yaml, at backend",
        "Backend of lm-eval",
        "'vllm'",
    ),
    "a choice twice": (
        text("config.yaml", yaml.safe_dump(CONFIG) + "backend: hf\n"),
        "config.yaml",
        "'backend' was expected once",
        "lines 1 and",
    ),
    "an unknown study in config.yaml": (
        text("config.yaml", yaml.safe_dump(CONFIG | {"studies": ["mien"]})),
        "config.yaml",
        "a study of config/studies/",
        "'mien'",
    ),
    "a folder that lacks three things": (
        lambda config: [
            shutil.rmtree(config / "studies"),
            *((config / name).unlink() for name in ("experts.yaml", "recipes.yaml")),
        ],
        "/config:",
        "a folder with",
        "recipes.yaml, experts.yaml, studies",
    ),
}


def test_there_are_sixty_cases():
    assert len(CASES) >= 60


def test_the_template_has_nothing_wrong(template):
    assert list(read_all(template).studies) == ["mine"]


def check(said, where, expected, found):
    """A sentence of one paragraph that has all four parts."""
    assert "\n" not in said.strip()
    assert where in said, said
    for words in (expected, found):
        assert any(word in said for word in words.split("|")), said
    todo = (
        "Correct",
        "Put",
        "Copy",
        "Add",
        "Rename",
        "Drop",
        "Name",
        "Save",
        "Take",
        "Give",
        "Known",
    )
    assert any(word in said for word in (*todo, "Choose", "Columns", "Make")), said


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_is_refused_in_a_sentence(case, template, tmp_path):
    config = tmp_path / "config"
    shutil.copytree(template, config)
    change, where, expected, found = CASES[case]
    change(config)
    with pytest.raises(WildmergeError) as error:
        read_all(config)
    check(str(error.value), where, expected, found)


def said_by_snakemake(project, *arguments):
    """What a refused run prints; no job of it has begun."""
    done = project.snakemake(*arguments, check=False)
    assert done.returncode
    assert not (project.folder / "logs").exists()
    return " ".join((done.stdout + done.stderr).split())


def test_an_unknown_target_is_answered_with_the_studies(project):
    said = said_by_snakemake(project, "-n", "pica")
    assert "A study of config/studies/ was expected as the target, found 'pica'" in said
    assert "Known are pico." in said


def test_a_key_twice_in_config_yaml_is_refused_by_a_dry_run(project):
    sheet = project.folder / "config/config.yaml"
    sheet.write_text(sheet.read_text() + "\nbackend: hf\n")
    assert "the key 'backend' was expected once" in said_by_snakemake(project, "-n", "pico")


def test_a_folder_that_is_missing_stops_the_run_before_its_first_job(tmp_path, pico_family):
    base, experts = pico_family
    project = make_project(tmp_path / "p", base, experts | {"bob": tmp_path / "nowhere"})
    planned = project.snakemake("-n", "pico")
    assert f"no folder {tmp_path / 'nowhere'}" in planned.stdout + planned.stderr
    said = said_by_snakemake(project, "pico")
    assert f"found pico/bob: no folder {tmp_path / 'nowhere'}" in said


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'{"accuracy": 0.5}', "a.items.parquet"),
        (None, "columns x"),
    ],
)
def test_compare_says_which_file_is_no_outcomes(content, found, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.items.parquet"
    if content is None:
        pq.write_table(pa.table({"x": [1]}), path)
    else:
        path.write_bytes(content)
    done = wildmerge("compare", path, path, cwd=tmp_path, code=1)
    assert "Traceback" not in done.stderr
    assert "items.parquet" in done.stderr and "expected" in done.stderr and found in done.stderr
