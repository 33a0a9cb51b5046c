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
    parser.add_argument(
        "--generation-backend", default="hf", help="lm-eval's backend that generates answers (hf)"
    )
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
        generation_backend=arguments.generation_backend,
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
    check_tasks({suite: suites[suite]}, str(path), packages=True)
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

    from wildmerge.evaluation import has_template, tokenize, tokenizer_digest
    from wildmerge.files import read_json

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    named = tokenizer_digest(tokenizer, chat=has_template(read_json(suite / "suite.json")))
    folder = data / "prompts" / named[:12] / suite.name
    if not folder.is_dir():
        print("Rendering the prompts for this tokenizer.", flush=True)
        tokenize(model, suite, folder)
    return folder


def _table(scores: dict[str, Any]) -> str:
    """A line a task, and the mean over tasks."""
    from wildmerge.evaluation import NEGATIVE_BITS

    tasks = scores["tasks"]
    bits = {task for task, row in tasks.items() if row["metric"] == NEGATIVE_BITS}
    names = {task: "bits a byte" if task in bits else row["metric"] for task, row in tasks.items()}
    wide = max(10, *(len(name) + 2 for name in names.values()))
    head = f"{'task':28}{'metric':>{wide}}{'questions':>11}{'right, %':>10}{'stderr':>9}"
    if bits:
        head = f"{'text':28}{'metric':>{wide}}{'documents':>11}{'value':>10}{'stderr':>9}"
    scale, digits = (-1, 4) if bits else (100, 2)
    lines = [head, "-" * len(head)]
    for task, row in tasks.items():
        stderr = "" if row["stderr"] is None else f"{abs(scale) * row['stderr']:.{digits}f}"
        value = f"{scale * row['value']:.{digits}f}"
        lines.append(
            f"{task:28}{names[task]:>{wide}}{row['questions']:>11}{value:>10}{stderr:>9}"
            f"{'  diverged' if row['diverged'] else ''}"
        )
    mean = scale * scores["accuracy"]
    lines.append(f"{'mean over tasks':28}{'':{wide + 11}}{mean:>10.{digits}f}")
    return "\n".join(lines)
