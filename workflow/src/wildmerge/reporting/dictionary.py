"""What each column of a study's files means, with its unit."""

from collections.abc import Mapping

import pandas as pd
from markupsafe import Markup

from .templates import Table

# Column -> meaning and unit, for all CSV files of a study.
COLUMNS = {
    "base": "base model; `average` is the plain mean over bases",
    "subset": "`base`, a checkpoint, a draw `n04-07` (size 4, draw 7) or a named group",
    "n": "number of merged checkpoints; 0 the base, 1 a single checkpoint",
    "draw": "number of the draw among those of its size; 0 where nothing was drawn",
    "members": "merged checkpoints, separated by `;`",
    "recipe": "merge recipe; `identity` where nothing was merged",
    "suite": "suite of benchmarks",
    "task": "benchmark",
    "metric": "lm-eval's metric of the benchmark",
    "value": "the metric, a fraction of 1; of a text bits a byte, with a minus",
    "stderr": "lm-eval's standard error of the metric, a fraction of 1",
    "questions": "number of questions",
    "accuracy": "mean of the suite's tasks, a fraction of 1",
    "base_accuracy": "the base's accuracy, a fraction of 1",
    "best_accuracy": "accuracy of the best single checkpoint on all questions, a fraction of 1",
    "best_model": "that checkpoint",
    "gain": "accuracy minus the reference's (the base's in merges.csv), percentage points",
    "gain_over_best": "accuracy minus best_accuracy, percentage points",
    "norm": "L2 norm of the merged update before rounding to 16 bits",
    "norm_rounded": "the same after rounding",
    "diverged": "tasks on which its log-likelihoods overflow, all counted wrong, separated by `;`",
    "left_out": "why the row has no numbers: it is missing, or its subset lacks other methods",
    "merge_seconds": "seconds that the merge took",
    "evaluate_seconds": "seconds that the evaluation took",
    "reference": "`base`; `own`, the best of a merge's own members; `best`, the best of all "
    "single checkpoints",
    "reference_model": "the model compared with; of several checkpoints the one that scored best",
    "gain_corrected": "the gain over the best of several checkpoints, or of a merge picked by its "
    "rank, corrected by a bootstrap for the pick, points",
    "low": "95 % interval of the gain over questions, points; empty where nothing varies; in "
    "best.csv simultaneous for all merges of the base",
    "high": "its upper end",
    "width_to_unpaired": "width of that interval relative to one of unpaired samples",
    "differing": "number of questions whose outcome differs (comparisons.csv); their share in "
    "percent, mean over subsets (methods.csv)",
    "se": "standard error of the gain over questions, as if no question depended on another, "
    "points",
    "se_clustered": "the same where questions of one cluster depend on each other",
    "mde": "smallest true difference that this test finds with 80 % power, uncorrected, points",
    "p_least": "the smallest p-value that could come of so many differing questions",
    "p": "two-sided p-value, uncorrected: of the paired test, or in the row's population",
    "p_false_discovery": "corrected by Benjamini-Hochberg for all merges of the study",
    "p_holm": "corrected by Holm for all merges (comparisons.csv), rows (answers.csv), or pairs "
    "or contrasts of one size (methods.csv)",
    "p_equal": "p-value of two one-sided tests that the difference lies within the study's margin",
    "p_equal_holm": "the same corrected by Holm",
    "verdict": "`above`, `below`, `equal` (within the margin) or `not told apart`, at 5 % after "
    "correction",
    "population": "what p and verdict are about: other `questions`, `draws`, `both`, or other "
    "`checkpoints` and questions",
    "models": "number of models in the row",
    "planned": "number of models that the study planned there",
    "share": "share of them with a gain above zero, percent",
    "share_low": "95 % interval of the share over draws, percent",
    "share_high": "its upper end",
    "share_questions_low": "95 % interval of the share over questions, percent",
    "share_questions_high": "its upper end",
    "share_null_low": "what the share would be without any true gain, central 95 %, percent",
    "share_null_high": "its upper end",
    "true_sd": "spread of the true gains of merges of one size, without the noise of the "
    "questions, points",
    "share_true": "share of merges whose true gain is above zero, by that spread, percent",
    "share_above": "share of models significantly above the reference, percent",
    "share_below": "share of models significantly below, percent",
    "questions_low": "95 % interval of the mean gain over questions, points",
    "questions_high": "its upper end",
    "draws_low": "95 % interval of the mean gain over draws, points",
    "draws_high": "its upper end",
    "both_low": "95 % interval of the mean over draws and questions, points",
    "both_high": "its upper end",
    "checkpoints_low": "95 % interval of the mean over other checkpoints and questions, points",
    "checkpoints_high": "its upper end",
    "bases_low": "95 % interval of the mean over bases, points (rows of `average`)",
    "bases_high": "its upper end",
    "contrast": "planned comparison of groups of recipes; empty for a pair",
    "a": "recipe, or recipes separated by `;`",
    "b": "the recipe or recipes compared with",
    "subsets": "number of subsets that all of these recipes have merged",
    "difference": "mean gain of a minus that of b on the same subsets, points",
    "wins": "share of subsets on which a scores higher than b, percent",
    "rank": "place among the merges of a base by gain, from 1",
    "contender": "whether this may be the best merge: the best is among the contenders in 95 % of "
    "studies",
    "outcome": "`probability` or `log-probability` (natural logarithm) of the right answer, at the "
    "model's own temperature; its gain is in points, or in nats",
    "temperature": "by which the model's scores are divided, so that its probabilities fit best; "
    "geometric mean over tasks",
    "over_members": "gain over each of its members, points, `name:+1.20` separated by `;`",
}

# Columns of checkpoints.csv and of tables/*.csv that need words.
CHECKPOINT_COLUMNS = {
    "model": "the checkpoint",
    "repo": "where it comes from",
    "revision": "the commit, or version and digest of a package",
    "usable": "whether it can be merged with its base",
    "norm": "L2 norm of its task vector",
    "relative_norm": "the same relative to the base's weights",
    "ancestry": "how far it stands from its family; from 3 on another ancestor is likely",
    "low_rank_tensors": "tensors whose task vector looks like a merged adapter",
    "found": "why it was refused",
    "admitted": "why the sheet admits it nevertheless",
    "conversions": "what was done to make it an ordinary checkpoint",
    "warnings": "what is odd about it",
}
TABLE_COLUMNS = {
    "combinations": "number of merges in the cell (checkpoints for n = 1)",
    "published_share": "the paper's share of merges above the reference, percent",
    "published_gain": "the paper's mean gain, points",
}

# Columns of results/scores/.../*.items.parquet, one row a question, that need words.
OUTCOME_COLUMNS = {
    "member": "lm-eval's leaf task that the question belongs to",
    "doc": "number of the question in the leaf task's data",
    "correct": "the metric of this question: 1 right, 0 wrong",
    "target": "index of the right choice",
    "loglikelihoods": "log-likelihood of each choice, natural logarithm",
}


def dictionary(frames: Mapping[str, pd.DataFrame]) -> Table:
    """What each column of the study's CSV files means."""
    rows: list[tuple[str, str, str]] = [
        (column, ", ".join(name for name, frame in frames.items() if column in frame), meaning)
        for column, meaning in COLUMNS.items()
    ]
    more = {
        "checkpoints": CHECKPOINT_COLUMNS,
        "tables/*.csv": TABLE_COLUMNS,
        "*.items.parquet": OUTCOME_COLUMNS,
    }
    for file, columns in more.items():
        rows += [(column, file, meaning) for column, meaning in columns.items()]
    lines = [
        [Markup("<code>{}</code>").format(column), file, meaning.replace("`", "")]
        for column, file, meaning in rows
    ]
    return Table(["Column", "files", "meaning and unit"], lines, wide=(1, 2))
