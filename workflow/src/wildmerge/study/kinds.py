"""Which of lm-eval's tasks can be a benchmark here, and by which metric.

Everything here is a mean over questions: intervals and tests need every question's outcome. A
metric that lm-eval makes of all answers together is refused.
"""

from collections.abc import Mapping
from typing import Any

from wildmerge import WildmergeError

from .questions import BITS

MULTIPLE_CHOICE, GENERATION, ANSWER, TEXTS = (
    "multiple_choice",
    "generate_until",
    "loglikelihood",
    "loglikelihood_rolling",
)
# By the kind of the task: metrics that lm-eval gives as they are, a number a question.
_BY_KIND = {
    MULTIPLE_CHOICE: ("acc", "acc_norm"),
    ANSWER: ("acc",),
    TEXTS: (BITS,),
}
_MEANS = ("acc", "exact_match")


def kind_of(config: Mapping[str, Any]) -> str:
    """How lm-eval asks a task: one of the four kinds of requests."""
    kind: str = config.get("output_type", GENERATION)
    return kind


def metrics_of(config: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """What a task can be measured by: name in suites.yaml -> lm-eval's (metric, filter).

    A generated answer goes through a filter first; where a task has several, the name says which:
    `exact_match,strict-match`, as lm-eval's own tables do.

    Args:
        config: of the task, as its file says it.
    """
    kind = kind_of(config)
    named = config.get("metric_list") or []
    if kind in _BY_KIND:
        return {e["metric"]: (e["metric"], "none") for e in named if e["metric"] in _BY_KIND[kind]}
    filters = [entry["name"] for entry in config.get("filter_list") or []] or ["none"]
    metrics = [
        entry["metric"]
        for entry in named
        if entry.get("aggregation", "mean" if entry["metric"] in _MEANS else None) == "mean"
    ]
    found = {f"{m},{f}": (m, f) for m in metrics for f in filters}
    if len(filters) == 1:
        found |= {m: (m, filters[0]) for m in metrics}
    return found


def check_metric(leaf: str, config: Mapping[str, Any], metric: str, place: str) -> tuple[str, str]:
    """Whether a leaf task of lm-eval can be asked and scored by a metric.

    Args:
        leaf: its name.
        config: what its file says.
        metric: as suites.yaml has it.
        place: names the entry in messages.

    Returns:
        lm-eval's (metric, filter).

    Raises:
        WildmergeError: the task runs code, wants pictures or sound, or has no such metric.
    """
    obstacle = None
    if "class" in config:
        obstacle = "a Python class, whose outcomes no sheet knows"
    elif config.get("unsafe_code"):
        obstacle = "a task that runs the code that a model writes"
    elif config.get("doc_to_image") or config.get("doc_to_audio"):
        obstacle = "a task with pictures or sound"
    if obstacle:
        raise WildmergeError(
            f"{place}: a task of text whose answers are compared was expected, found {obstacle} "
            f"(lm-eval's {leaf!r}). Take it out of the suite."
        )
    known = metrics_of(config)
    if metric not in known:
        shown = [name for name in known if len(name.split(",")) == 2] or list(known)
        raise WildmergeError(
            f"{place}: a metric that is a mean over questions was expected, found {metric!r}, but "
            f"lm-eval's {leaf!r} has only {', '.join(shown) or 'others'}. Another metric is never "
            "put in its place. Name one of these, or take the task out of the suite."
        )
    return known[metric]
