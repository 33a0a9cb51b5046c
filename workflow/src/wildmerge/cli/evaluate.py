"""Score a folder of weights on a suite, without Snakemake.

It fetches the suite's questions and renders its prompts where that is not done yet, prints a table,
and writes OUT/SUITE.json (scores) and OUT/SUITE.items.parquet (every question's outcome, for
`wildmerge compare`).
"""

import argparse
from pathlib import Path
from typing import Any

from wildmerge import WildmergeError
from wildmerge.home import config_folder, home

EXAMPLE = """\
  wildmerge evaluate results/studies/mine/kept/my-base/n02-01/ties --suite small --out scores/ties
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the suite, and what leaves scores comparable."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="a checkpoint folder")
    parser.add_argument("--suite", required=True, help="a suite of config/suites.yaml")
    parser.add_argument("--out", type=Path, help="folder for the scores (scores/NAME OF MODEL)")
    parser.add_argument(
        "--data", type=Path, default=Path("resources/by-hand"), help="keeps questions and prompts"
    )
    parser.add_argument("--backend", choices=("shared-prefix", "hf"), default="shared-prefix")
    parser.add_argument("--batch-size", type=int, default=16, help="requests a forward pass of hf")
    parser.add_argument("--device", help="torch's name of it (a GPU if there is one)")


def run(arguments: argparse.Namespace) -> int:
    """Score the model and print its table."""
    spec = _spec(arguments.suite)
    model: Path = arguments.model
    if not (model / "config.json").is_file():
        raise WildmergeError(
            f"A checkpoint folder was expected at {model}, but there is no {model / 'config.json'}."
        )
    out: Path = arguments.out or Path("scores") / model.resolve().name
    suite = _questions(arguments.suite, spec, arguments.data)
    from wildmerge.evaluation import offline

    offline()  # all is here now, and a node without network must not wait for the hub
    import pyarrow.parquet as pq

    from wildmerge.evaluation import evaluate
    from wildmerge.files import atomic_file, write_json

    scores, items = evaluate(
        model,
        suite,
        _prompts(model, suite, arguments.data),
        backend=arguments.backend,
        batch_size=arguments.batch_size,
        dtype=spec["dtype"],
        softmax_dtype=spec.get("softmax_dtype"),
        device=arguments.device,
    )
    with atomic_file(out / f"{arguments.suite}.items.parquet") as part:
        pq.write_table(items, part, compression="zstd")
    write_json(out / f"{arguments.suite}.json", {"suite": arguments.suite} | scores)
    print(f"\n{_table(scores)}\n\n{out / arguments.suite}.json")
    return 0


def _spec(suite: str) -> dict[str, Any]:
    """The suite's entry in suites.yaml."""
    from wildmerge.study import check_tasks
    from wildmerge.validation import read_yaml, validate

    path = config_folder() / "suites.yaml"
    suites = read_yaml(path)
    validate(suites, read_yaml(home() / "workflow/schemas/suites.schema.yaml"), str(path))
    if suite not in suites:
        raise WildmergeError(
            f"{path}: a suite {suite} was expected, but there is none. Known are "
            f"{', '.join(suites)}."
        )
    check_tasks({suite: suites[suite]}, str(path))
    return suites[suite]


def _questions(name: str, spec: dict[str, Any], data: Path) -> Path:
    """The folder with the suite's questions, made if it is not there.

    It is named by what the suite says, by the bytes of one's own files and by lm-eval's release:
    another suite of that name does not take its place.
    """
    from importlib.metadata import version

    from wildmerge.evaluation import fetch_suite
    from wildmerge.files import json_digest, sha256_file
    from wildmerge.sources import DATASETS_LOCK, pins_of, read_lock
    from wildmerge.study import own_files

    pins = pins_of(name, read_lock(config_folder() / DATASETS_LOCK))
    own = [sha256_file(file) for file in own_files(spec)]
    said = json_digest([spec, version("lm_eval"), *([pins] if pins else []), *own])[:12]
    folder = data / "suites" / f"{name}-{said}"
    if not folder.is_dir():
        print(f"Fetching the questions of suite {name}.", flush=True)
        fetch_suite(name, spec, folder, pins)
    return folder


def _prompts(model: Path, suite: Path, data: Path) -> Path:
    """The folder with the suite's prompts for this model's tokenizer, made if it is not there."""
    import transformers

    from wildmerge.evaluation import tokenize, tokenizer_digest

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    folder = data / "prompts" / tokenizer_digest(tokenizer)[:12] / suite.name
    if not folder.is_dir():
        print("Rendering the prompts for this tokenizer.", flush=True)
        tokenize(model, suite, folder)
    return folder


def _table(scores: dict[str, Any]) -> str:
    """A line a task, and the mean over tasks."""
    head = f"{'task':28}{'metric':>10}{'questions':>11}{'right, %':>10}{'stderr':>9}"
    lines = [head, "-" * len(head)]
    for task, row in scores["tasks"].items():
        stderr = "" if row["stderr"] is None else f"{100 * row['stderr']:.2f}"
        lines.append(
            f"{task:28}{row['metric']:>10}{row['questions']:>11}{100 * row['value']:>10.2f}"
            f"{stderr:>9}{'  diverged' if row['diverged'] else ''}"
        )
    lines.append(f"{'mean over tasks':28}{'':21}{100 * scores['accuracy']:>10.2f}")
    return "\n".join(lines)
