"""Find what a study could not make, to go on without it.

It looks which of the study's scores are not there, takes the reason of each from its verdict or
log, and prints the key `missing` for config/studies/STUDY.yaml; with --write it puts it there. Then
`snakemake STUDY` makes tables, figures and report from what there is. Take a line out again, and
its merges are tried again.
"""

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wildmerge import WildmergeError
from wildmerge.home import config_folder, home

if TYPE_CHECKING:
    from wildmerge.study import Needs

EXAMPLE = """\
  wildmerge missing wild
  wildmerge missing wild --write
"""
_UNTRIED = "no job of it has begun"
_LONGEST = 200  # characters of a reason


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study, and what to do."""
    parser.add_argument("study", metavar="STUDY", help="a file of config/studies/, without .yaml")
    parser.add_argument("--write", action="store_true", help="write the key into the study's file")
    parser.add_argument(
        "--all", action="store_true", help="go on without what was never begun, too"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print or write what is missing."""
    from wildmerge.files import atomic_file
    from wildmerge.study import Needs, mark_missing, paths, sheets

    config, name = config_folder(), arguments.study
    loaded = sheets.load(config, home() / "workflow/schemas")
    needs = Needs(loaded, paths.Scratch())
    study, path = needs.study(name), config / f"studies/{name}.yaml"
    found = find(needs, name)
    untried = [entry for entry, why in found.items() if why == _UNTRIED]
    if untried and not arguments.all:
        print(
            f"{len(untried)} that no job has begun yet, {untried[0]} among them, are left to "
            f"`snakemake {name}` (with --all they are missing, too)."
        )
        found = {entry: why for entry, why in found.items() if why != _UNTRIED}
    if not found:
        print(f"Nothing that was begun is missing in study {name}.")
        return 0
    value = study.get("missing", {}) | found
    marked = mark_missing(loaded.evaluations[name], study | {"missing": value}, str(path))
    merges = [e for e in marked if e.is_merge]
    text = with_key(path.read_text(encoding="utf-8"), "missing", value, str(path))
    if arguments.write:
        with atomic_file(path) as part:
            part.write_text(text, encoding="utf-8")
        print(f"{path}: {len(found)} written to `missing`.")
    else:
        print(f"{_block('missing', value)}\nThis goes into {path}; --write puts it there.")
    left = sum(not e.missing for e in merges)
    print(f"{left} of {len(merges)} planned scores of merges are left. Then: snakemake {name}")
    return 0


def find(needs: "Needs", study: str) -> dict[str, str]:
    """What a study lacks that its YAML does not say already, with reasons, as `missing` holds it.

    A checkpoint is missing where nothing that holds it has scores and its verdict was not passed
    on; what else lacks scores is named by itself.

    Raises:
        WildmergeError: a base has no scores.
    """
    from wildmerge.study import IDENTITY, paths

    rows = [row for row in needs.planned(study) if not row["missing"]]
    lacking = [row for row in rows if not Path(row["scores"]).exists()]
    found: dict[str, str] = {}
    for base, models in needs.study_checkpoints(study).items():
        for model in models:
            holding = [r for r in rows if r["base"] == base and model in r["members"]]
            merges = [r for r in holding if r["recipe"] != IDENTITY] or holding
            refused = not Path(paths.admitted(base, model)).exists()
            if refused and merges and all(row in lacking for row in merges):
                found[f"{base}/{model}"] = _why_checkpoint(base, model)
    for row in lacking:
        base, subset, recipe = row["base"], row["subset"], row["recipe"]
        if not row["members"]:
            raise WildmergeError(
                f"The scores of {base} itself were expected in {row['scores']}, found none. "
                f"Nothing can be compared without the base: run `snakemake {study}` again."
            )
        if not any(f"{base}/{model}" in found for model in row["members"]):
            found.setdefault(f"{base}/{subset}/{recipe}", _why_model(row))
    return found


def _why_checkpoint(base: str, model: str) -> str:
    """Why a checkpoint was not passed on to its merges."""
    from wildmerge.files import read_json
    from wildmerge.study import paths

    verdict = Path(paths.verdict(base, model))
    if verdict.exists():
        reasons = read_json(verdict)["reasons"]
        return _short(f"refused: {'; '.join(reasons)}") if reasons else _UNTRIED
    rules = "task_vector", "download", "finetune"
    return _said(Path(f"logs/{rule}/{base}/{model}.log") for rule in rules)


def _why_model(row: dict[str, Any]) -> str:
    """Why a model has no scores."""
    place = f"{row['base']}/{row['subset']}/{row['recipe']}"
    logs = [Path(f"logs/evaluate/{place}/{row['suite']}.log"), Path(f"logs/merge/{place}.log")]
    made = row["summary"] is None or Path(row["summary"]).exists()
    return _said(logs[:1] if made else logs[1:])


def _said(logs: Iterable[Path]) -> str:
    """The last words of the first log that is there."""
    for log in logs:
        if log.exists():
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            words = [line.strip() for line in lines if line.strip() and "Log: /" not in line]
            # What `run.job` puts before an error: the job's name.
            last = re.sub(r"^[a-z_]+ [a-z0-9._/-]+: ", "", words[-1]) if words else ""
            return _short(last or "its job ended without a word")
    return _UNTRIED


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 4].rsplit(" ", 1)[0] + " ..."


def _block(key: str, value: dict[str, str]) -> str:
    import yaml

    return str(yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=96))


def with_key(text: str, key: str, value: dict[str, str], where: str) -> str:
    """A YAML file's text with a key at its top set anew, all else to the letter as it was.

    Args:
        text: of the file.
        key: at its top; it may be there already.
        value: what it shall hold.
        where: the file, for messages.

    Raises:
        WildmergeError: the file is written so that this can't be done safely.
    """
    import yaml

    block = _block(key, value)
    own = re.compile(rf"^{key}:[^\n]*\n(?:[ \t]+[^\n]*\n|\n(?=[ \t]))*", re.MULTILINE)
    whole = text if text.endswith("\n") else f"{text}\n"
    edited, times = own.subn(lambda _: block, whole, count=1)
    if not times:
        edited = f"{whole}{block}"
    try:
        safe = yaml.safe_load(edited) == yaml.safe_load(text) | {key: value}
    except yaml.YAMLError:
        safe = False
    if not safe:
        raise WildmergeError(
            f"{where}: a key `{key}` was expected at the start of a line, with what it holds "
            f"indented below it, found it written otherwise. Put this there by hand:\n{block}"
        )
    return edited
