"""Scores in lm-eval's own results format, counted once more by lm-eval itself."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from wildmerge import WildmergeError
from wildmerge.files import atomic_folder, read_json

from .datasets_cache import no_datasets_cache

if TYPE_CHECKING:
    from lm_eval.api.model import LM


def export(scores: str | Path, suite: str | Path, folder: str | Path) -> None:
    """Write a model's scores and samples as `lm_eval run --log_samples` would have.

    lm-eval asks the suite's questions again, of the kept log-likelihoods in the place of a model,
    and counts and writes by its own code. Whether an answer was greedy is not kept: False.

    Args:
        scores: a score file; every question's outcome lies beside it (`.items.parquet`).
        suite: folder of the suite's questions, as `suites.fetch_suite` makes it.
        folder: where to, whole or not there: `results_<date>.json`, `samples_<leaf>_<date>.jsonl`.

    Raises:
        WildmergeError: another suite's questions, or lm-eval counts otherwise.
    """
    from lm_eval import simple_evaluate
    from lm_eval.defaults import DEFAULT_RANDOM_SEED
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    scores, suite = Path(scores), Path(suite)
    found, spec = read_json(scores), read_json(suite / "suite.json")
    if found["suite_digest"] != spec["digest"]:
        raise WildmergeError(
            f"Expected the questions in {suite} to be those that {scores} was scored on, but they "
            f"have digest {spec['digest'][:12]} and those {found['suite_digest'][:12]}. Name the "
            f"folder of that suite, or score the model again."
        )
    outcomes = pq.read_table(scores.with_suffix(".items.parquet"))
    manager = TaskManager(include_path=str(suite / "tasks"), include_defaults=False)
    leaves = [leaf for task in spec["tasks"].values() for leaf in task["members"]]
    with atomic_folder(folder) as part, no_datasets_cache():
        # As in `prompts.tokenize`: some tasks shuffle choices as they load.
        random.seed(DEFAULT_RANDOM_SEED)
        loaded = manager.load(leaves)["tasks"]
        results = simple_evaluate(
            _playback(outcomes),
            tasks=[loaded[leaf] for leaf in leaves],
            task_manager=manager,
        )
        _check(found, results["results"], scores)
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

    kept = {
        (row["member"], row["doc"]): row["loglikelihoods"]
        for row in outcomes.select(["member", "doc", "loglikelihoods"]).to_pylist()
    }

    class Playback(LM):
        def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
            return [(kept[r.task_name, r.doc_id][r.idx], False) for r in requests]

        def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
            raise NotImplementedError

        def generate_until(self, requests: list[Instance]) -> list[str]:
            raise NotImplementedError

    return Playback()


def _check(scores: dict[str, Any], results: dict[str, Any], where: Path) -> None:
    """Raise WildmergeError where lm-eval's value is another; a diverged task is not compared."""
    for entry in scores["tasks"].values():
        for leaf, member in entry["members"].items():
            value = results[leaf][f"{entry['metric']},none"]
            # Kept in float32, a tie may fall otherwise.
            if not entry["diverged"] and abs(value - member["value"]) * member["questions"] > 1:
                raise WildmergeError(
                    f"Expected lm-eval to count {entry['metric']} of {leaf} as {where} does, "
                    f"{member['value']:.4f}, but it gives {value:.4f}. Score the model again."
                )
