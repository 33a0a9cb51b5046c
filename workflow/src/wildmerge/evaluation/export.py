"""Scores in lm-eval's own results format, counted once more by lm-eval itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from wildmerge import WildmergeError
from wildmerge.files import atomic_folder, read_json

from .asking import load_tasks
from .datasets_cache import no_datasets_cache
from .outcomes import NEGATIVE_BITS

if TYPE_CHECKING:
    from lm_eval.api.model import LM


def export(scores: str | Path, suite: str | Path, folder: str | Path) -> None:
    """Write a model's scores and samples as `lm_eval run --log_samples` would have.

    lm-eval asks the suite's questions again, of the kept log-likelihoods and texts in the place of
    a model, and counts and writes by its own code. Whether a choice was greedy is not kept: False.

    Args:
        scores: a score file; every question's outcome lies beside it (`.items.parquet`).
        suite: folder of the suite's questions, as `suites.fetch_suite` makes it.
        folder: where to, whole or not there: `results_<date>.json`, `samples_<leaf>_<date>.jsonl`.

    Raises:
        WildmergeError: another suite's questions, a suite with a chat template (whose prompts are
            not rendered without a tokenizer), or lm-eval counts otherwise.
    """
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker

    scores, suite = Path(scores), Path(suite)
    found, spec = read_json(scores), read_json(suite / "suite.json")
    if found["suite_digest"] != spec["digest"]:
        raise WildmergeError(
            f"Expected the questions in {suite} to be those that {scores} was scored on, but they "
            f"have digest {spec['digest'][:12]} and those {found['suite_digest'][:12]}. Name the "
            f"folder of that suite, or score the model again."
        )
    if spec.get("chat"):
        raise WildmergeError(
            f"Expected a suite without a chat template or system instruction, since its prompts, "
            f"a part of lm-eval's samples, need a tokenizer, but {suite} has "
            f"{', '.join(spec['chat'])}. Run lm-eval itself for it: `wildmerge lm-eval run "
            f"--include_path {suite / 'tasks'} ...`."
        )
    outcomes = pq.read_table(scores.with_suffix(".items.parquet"))
    leaves = [leaf for task in spec["tasks"].values() for leaf in task["members"]]
    with atomic_folder(folder) as part, no_datasets_cache():
        manager, loaded = load_tasks(suite, spec)
        results = simple_evaluate(
            _playback(outcomes),
            tasks=[loaded[leaf] for leaf in leaves],
            task_manager=manager,
        )
        _check(found, spec, results["results"], scores)
        results["config"] |= {"model": found["backend"], "batch_size": found["batch_size"]}
        results["config"] |= {"device": found["device"], "model_dtype": found["dtype"]}
        samples = results.pop("samples")
        tracker = EvaluationTracker(output_path=str(part / "results.json"))
        tracker.save_results_aggregated(results=results, samples=samples)
        for leaf in leaves:
            tracker.save_results_samples(task_name=leaf, samples=samples[leaf])
        written = {file.name.partition("_2")[0] for file in part.iterdir()}
        if written != {"results", *(f"samples_{leaf}" for leaf in leaves)}:
            raise WildmergeError(
                f"Expected lm-eval to write its results and the samples of {len(leaves)} tasks "
                f"into {part}, but it wrote {len(written)} files. Look whether the disk is full."
            )


def _playback(outcomes: pa.Table) -> LM:
    """A model of lm-eval that answers with kept log-likelihoods."""
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM

    kept = {(row["member"], row["doc"]): row for row in outcomes.to_pylist()}

    def values(request: Instance) -> list[float]:
        return list(kept[request.task_name, request.doc_id]["loglikelihoods"])

    class Playback(LM):
        def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
            # One alone is a text's last word, which is right where it is greedy.
            right = [kept[r.task_name, r.doc_id]["correct"] == 1 for r in requests]
            return [
                (values(r)[r.idx], greedy and len(values(r)) == 1)
                for r, greedy in zip(requests, right, strict=True)
            ]

        def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
            return [values(r)[0] for r in requests]

        def generate_until(self, requests: list[Instance]) -> list[str]:
            return [kept[r.task_name, r.doc_id]["text"] for r in requests]

    return Playback()


def _check(
    scores: dict[str, Any], suite: dict[str, Any], results: dict[str, Any], where: Path
) -> None:
    """Raise WildmergeError where lm-eval's value is another; a diverged task is not compared."""
    for task, entry in scores["tasks"].items():
        metric = ",".join(suite["tasks"][task].get("result", [entry["metric"], "none"]))
        for leaf, member in entry["members"].items():
            value = results[leaf][metric]
            if entry["metric"] == NEGATIVE_BITS:
                value = -value
            # Kept in float32, a tie may fall otherwise.
            if not entry["diverged"] and abs(value - member["value"]) * member["questions"] > 1:
                raise WildmergeError(
                    f"Expected lm-eval to count {entry['metric']} of {leaf} as {where} does, "
                    f"{member['value']:.4f}, but it gives {value:.4f}. Score the model again."
                )
