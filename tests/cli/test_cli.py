"""The command `wildmerge`: every subcommand once, on pico checkpoints."""

import json
import subprocess
import sys
import textwrap

import pytest
import yaml
from project import ROOT, counts, wildmerge
from wildmerge.cli.main import COMMANDS, main
from wildmerge.home import config_folder, home, search_path
from wildmerge.study.sheets import read_yaml, validate


def dry_run(study, cwd) -> dict[str, int]:
    command = [sys.executable, "-m", "snakemake", study, "-n", "--quiet", "rules"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return counts(done.stdout)


@pytest.mark.parametrize(
    "words", [[name] for name in COMMANDS] + [["new", "study"], ["new", "project"]]
)
def test_every_help_has_a_sentence_and_an_example(words, capsys):
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    usage, sentence, *_ = text.split("\n\n")
    assert usage.startswith(f"usage: wildmerge {' '.join(words)}")
    assert sentence.endswith(".")
    assert f"wildmerge {' '.join(words)}" in text.split("example:")[1]


def test_the_help_imports_nothing_heavy():
    code = """
        import sys
        from wildmerge.cli.main import main
        try:
            main(["--help"])
        except SystemExit:
            heavy = ["torch", "numpy", "pandas", "yaml", "rich", "transformers", "snakemake"]
            print("heavy:", [name for name in heavy if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert "heavy: []" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["digest", "nosuch"], "A checkpoint folder was expected at nosuch"),
        (["evaluate", "nosuch", "--suite", "demo"], "A checkpoint folder was expected at nosuch"),
        (["evaluate", "nosuch", "--suite", "nosuch"], "a suite nosuch was expected"),
        (["merge", "nosuch.yaml", "out"], "A mergekit YAML was expected at nosuch.yaml"),
        (["plan", "nosuch"], "A study of config/studies/ was expected as the target"),
        (["watch"], "A log of Snakemake was expected"),
        (["lock"], "A folder config/ was expected"),
        (["new", "study", "mine"], "A folder config/ was expected"),
        (["new", "project", "."], "A new or empty folder was expected"),
    ],
)
def test_a_known_error_is_one_paragraph(words, expected, tmp_path):
    (tmp_path / "something").touch()
    done = wildmerge(*words, cwd=tmp_path, code=1)
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert "\n\n" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"something", ".snakemake"}


def test_models_are_scored_and_compared(project, pico_family):
    base, experts = pico_family
    done = wildmerge("evaluate", base, "--suite", "few", "--out", "a", cwd=project.folder)
    assert "Fetching the questions" in done.stdout
    again = wildmerge(
        "evaluate", experts["ann"], "--suite", "few", "--out", "b", cwd=project.folder
    )
    assert "Fetching" not in again.stdout
    assert "Rendering" not in again.stdout  # the expert has the base's tokenizer
    scores = json.loads((project.folder / "b/few.json").read_text())
    assert list(scores["tasks"]) == ["arc_easy", "piqa"]
    assert f"{100 * scores['accuracy']:.2f}" in again.stdout.splitlines()[-3]
    digest = wildmerge("digest", experts["ann"], cwd=project.folder).stdout.split()[0]
    assert scores["model_digest"] == digest
    files = ["a/few.items.parquet", "b/few.items.parquet"]
    compared = wildmerge("compare", *files, cwd=project.folder)
    assert "mean over tasks" in compared.stdout
    gone = wildmerge("compare", files[0], "nosuch.parquet", cwd=project.folder, code=1)
    assert "nosuch.parquet" in gone.stderr


def test_a_merge_by_a_mergekit_yaml(pico_family, tmp_path):
    base, experts = pico_family
    config = {
        "merge_method": "iso_c",
        "base_model": str(base),
        "models": [{"model": str(experts[name])} for name in ("ann", "bob")],
        "parameters": {"lambda": 1.0, "combine": "sum"},
        "dtype": "float32",
        "out_dtype": "bfloat16",
    }
    (tmp_path / "mergekit.yaml").write_text(yaml.safe_dump(config))
    wildmerge("merge", "mergekit.yaml", "out", "--quiet", cwd=tmp_path)
    folders = [tmp_path / "out", base, *experts.values()]
    done = wildmerge("digest", *folders, cwd=tmp_path)
    assert len({line.split()[0] for line in done.stdout.splitlines()}) == len(folders)


def test_lm_eval_has_the_backend(tmp_path):
    words = ["--model", "shared-prefix", "--tasks", "piqa", "--model_args", "pretrained=/nosuch"]
    done = wildmerge("lm-eval", "run", *words, cwd=tmp_path, code=1)
    assert "/nosuch" in done.stderr  # the backend was found, the model was not


def test_preflight_plan_and_watch(project):
    done = wildmerge("preflight", "pico", cwd=project.folder)
    assert "5 rows, 0 unusable" in done.stdout + done.stderr
    watched = wildmerge("watch", cwd=project.folder)
    assert "1 of 1 jobs done" in watched.stdout
    planned = wildmerge("plan", "pico", cwd=project.folder)
    assert "Still to do for pico" in planned.stdout
    assert "Peak disk" in planned.stdout


def test_lock_writes_the_lock(project):
    done = wildmerge("lock", cwd=project.folder)
    assert "models.lock.json: 0 of 0 repositories" in done.stdout
    assert json.loads((project.folder / "config/models.lock.json").read_text()) == {}


def test_a_new_project_runs_by_itself(tmp_path):
    wildmerge("new", "project", "mine", cwd=tmp_path)
    folder = tmp_path / "mine"
    assert len((folder / "Snakefile").read_text().splitlines()) == 2
    assert (folder / "slurm").resolve() == (folder / "profiles/slurm").resolve()
    jobs = dry_run("demo", folder)
    assert jobs == dry_run("demo", ROOT)
    assert jobs["merge"] == 14
    wildmerge("new", "project", "mine", cwd=tmp_path, code=1)


def test_a_new_study_has_every_key_and_runs(project):
    done = wildmerge("new", "study", "mine", cwd=project.folder)
    path = project.folder / "config/studies/mine.yaml"
    assert str(path.relative_to(project.folder)) in done.stdout
    text, schema = path.read_text(), read_yaml(ROOT / "workflow/schemas/study.schema.yaml")
    for key in schema["properties"]:
        assert f"\n{key}: " in text.replace("\n# ", "\n"), key
    study = yaml.safe_load(text)
    validate(study, schema, "mine")
    assert (study["bases"], study["pool"]) == (["pico"], "wild")
    # What is a comment is a key of YAML, too.
    commented = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    keys = [line for line in commented if line.split(":")[0] in schema["properties"]]
    assert {*yaml.safe_load("\n".join(keys)), *study} == {*schema["properties"]}
    assert project.jobs("mine")["merge"] == 6
    wildmerge("new", "study", "mine", cwd=project.folder, code=1)
    wildmerge("new", "study", "Mine", cwd=project.folder, code=1)


def test_home_is_the_checkout_here(tmp_path, monkeypatch):
    assert home() == ROOT
    assert search_path(tmp_path) == ROOT / "workflow/src"
    monkeypatch.chdir(tmp_path)
    assert config_folder() == ROOT / "config"
    (tmp_path / "config").mkdir()
    assert str(config_folder()) == "config"
