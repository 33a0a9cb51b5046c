"""Begin something of your own: a study, or a working folder with all that a study needs."""

import argparse
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

from wildmerge import WildmergeError
from wildmerge.home import home

EXAMPLE = """\
  wildmerge new project my-merges
  cd my-merges
  wildmerge new study mine
"""
_STUDY = """Write config/studies/NAME.yaml, a small study with every key of a study explained.

The study is a target: `snakemake NAME`.
"""
_PROJECT = """Make a working folder: config/, profiles/, a Snakefile that includes the workflow.

Edit its sheets, then run snakemake in it.
"""
SNAKEFILE = """\
from wildmerge.home import home
include: str(home() / "Snakefile")
"""
README = """\
# A project of wildmerge

`config/` holds the sheets (config/README.md explains each key), `profiles/` what a run and your
cluster want, the Snakefile includes the installed workflow. In this folder:

    snakemake demo -n --quiet rules    # look first
    snakemake --cores all demo
    wildmerge new study mine           # then edit config/studies/mine.yaml
    snakemake mine --profile slurm     # on a cluster; see profiles/slurm/README.md
"""
IGNORED = """\
.snakemake/
/resources/
/results/
/logs/
/benchmarks/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to begin."""
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    for name, text, example, metavar in (
        ("study", _STUDY, "wildmerge new study mine", "NAME"),
        ("project", _PROJECT, "wildmerge new project my-merges", "FOLDER"),
    ):
        kind = kinds.add_parser(
            name,
            help=text.splitlines()[0],
            description=text,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        kind.add_argument("name", metavar=metavar, help="of what is made")
        kind.set_defaults(make=_study if name == "study" else _project)


def run(arguments: argparse.Namespace) -> int:
    """Make it."""
    arguments.make(arguments.name)
    return 0


def _study(name: str) -> None:
    """Write the skeleton of a study, its keys and their meaning from the schema."""
    from wildmerge.files import atomic_file
    from wildmerge.study import read_rows
    from wildmerge.validation import read_yaml

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise WildmergeError(
            f"A study's name of lower case letters, digits and `_` was expected, found {name!r}. "
            "It becomes a target and part of paths."
        )
    path = Path("config/studies") / f"{name}.yaml"
    if not Path("config").is_dir():
        raise WildmergeError(
            f"A folder config/ was expected in {Path.cwd()}, but there is none. Go to the "
            "project's folder, or make one: `wildmerge new project FOLDER`."
        )
    if path.exists():
        raise WildmergeError(f"{path} is there already. Choose another name, or edit that file.")
    values = _first(
        read_rows(Path("config/models.tsv")),
        read_yaml(Path("config/recipes.yaml")),
        read_yaml(Path("config/suites.yaml")),
    )
    schema = read_yaml(home() / "workflow/schemas/study.schema.yaml")
    with atomic_file(path) as part:
        part.write_text(skeleton(schema, values), encoding="utf-8")
    print(f"{path}\nEdit it; `snakemake {name} -n --quiet rules` shows what it takes.")


def _first(rows: list[dict], recipes: dict, suites: dict) -> dict[str, Any]:
    """Values of a small study over the first pool of models.tsv that has something to draw."""
    row = next((row for row in rows if row["pool"]), {"base": "my-base", "pool": "my-pool"})
    return {
        "description": "What does this study ask?",
        "bases": [row["base"]],
        "pool": row["pool"].split(";")[0],
        "sizes": [2],
        "draws": 3,
        "recipes": list(recipes)[:2],
        "suites": list(suites)[:1],
        "figures": ["accuracy_by_n"],
        "tables": ["success_rate"],
    }


def skeleton(schema: dict[str, Any], values: dict[str, Any]) -> str:
    """A study as YAML: each key of the schema below its meaning, a comment if it has no value.

    Args:
        schema: of a study, with `properties`.
        values: key -> what the study says.
    """
    import yaml

    empty = {"array": [], "object": {}, "integer": 0, "number": 0.5, "boolean": False, "string": ""}
    lines = []
    for key, meaning in schema["properties"].items():
        about = " ".join(meaning["description"].split())
        lines += textwrap.wrap(about, 98, initial_indent="# ", subsequent_indent="# ")
        value = values.get(key, empty[meaning["type"]])
        text = yaml.safe_dump(value, default_flow_style=True, width=1000)
        line = f"{key}: " + text.replace("\n...", "").strip()
        lines += [line if key in values else f"# {line}", ""]
    return "\n".join(lines)


def _project(name: str) -> None:
    """Make a working folder, whole or not at all."""
    from wildmerge.files import atomic_folder

    folder = Path(name)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise WildmergeError(
            f"A new or empty folder was expected at {folder}, but something is there. Choose "
            "another name."
        )
    source = home()
    with atomic_folder(folder) as part:
        shutil.copytree(source / "config", part / "config")
        shutil.copytree(source / "profiles", part / "profiles")
        (part / "slurm").symlink_to("profiles/slurm")
        (part / "Snakefile").write_text(SNAKEFILE, encoding="utf-8")
        (part / "README.md").write_text(README, encoding="utf-8")
        (part / ".gitignore").write_text(IGNORED, encoding="utf-8")
    print(f"{folder}\nIts README.md says what to type there.")
