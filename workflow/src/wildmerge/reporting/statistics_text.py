"""What the report says of its statistics."""

from wildmerge.analysis import stats

STATISTICS = f"""
<ul>
<li><b>Accuracy</b> is the plain mean over the suite's tasks, as in the paper; a gain is a
difference of accuracies in percentage points.</li>
<li><b>95 % over questions</b>: what would vary with other questions of the same tasks, these very
models given. Paired bootstrap: {stats.RESAMPLES} resamples of the questions within each task, the
same for all models.</li>
<li><b>95 % over draws</b>: what would vary with other subsets of the same size from the same
checkpoints, these very questions given. Bootstrap of the draws within each size, widened to
Student's quantile (few draws), narrowed for the part of all subsets that was drawn. No interval
where one draw was made or all subsets were.</li>
<li><b>Test</b>: paired, question by question (McNemar's test carried over to a mean of tasks), two
sided. Each merge's p-value is corrected for all merges of the study by Benjamini and Hochberg: over
many such studies at most 5 % of the merges called above or below are so by chance; in one study
the errors come together, since all merges are compared with one base on the same questions. A
method's mean gain is corrected by Holm for all rows of its table: 5 % chance of any false verdict.
Both are about these very merges: whether a method is better for other subsets, too, is what the
interval over draws tells.</li>
<li>Questions count as independent. In <code>leaderboard_gpqa</code> (nested sets) and
<code>headqa</code> (two languages) a question comes back up to three times: their own intervals
are up to 1.5 times too narrow, those of the mean over 16 tasks by less than a tenth.</li>
<li><b>Best single checkpoint</b>: the maximum of several noisy scores lies above the truth.
Here the best one is chosen on one half of the questions of each task and compared with on the
other half, which has no such bias but wider intervals; the table in the paper's manner chooses and
compares on all questions.</li>
<li><b>Not told apart</b> is not "equal": the questions are too few to see a difference as small as
the interval is wide.</li>
</ul>
"""
