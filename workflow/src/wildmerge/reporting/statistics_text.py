"""What the report says of its statistics."""

from wildmerge.analysis import questions

STATISTICS = f"""
<ul>
<li><b>Accuracy</b> is the plain mean over the suite's tasks, as in the paper; a gain is a
difference of accuracies in percentage points.</li>
<li><b>95 % over questions</b>: what would vary with other questions of the same tasks, these very
models given. Score interval of the paired differences: wider than a normal one where few questions
differ, and it leaves out zero exactly where the test finds a difference.</li>
<li><b>Clusters</b>: questions that depend on each other (on one passage, of one template), as the
suite's key <code>cluster</code> names them, count as one; all others stand alone.</li>
<li><b>95 % over draws</b>: what would vary with other subsets of the same size from the same
checkpoints, these very questions given. Bootstrap of the draws within each size, widened to
Student's quantile (few draws), narrowed for the part of all subsets that was drawn. No interval
where one draw was made or all subsets were.</li>
<li><b>Over both</b>: other questions and other subsets; the two variances added, less the noise
over questions that is in both. Student's quantile.</li>
<li><b>Over other checkpoints</b>: other checkpoints of the same kind, their subsets, and other
questions. Jackknife that leaves out a checkpoint at a time; Student's quantile with a degree less
than there are checkpoints. No interval where fewer than five draws leave some checkpoint out.</li>
<li><b>Test</b>: paired, question by question (McNemar's test carried over to a mean of tasks), two
sided; the mid-p value over all patterns for up to {questions.EXACT} differing clusters. Each
merge's p-value is corrected for all merges of the study by Benjamini and Hochberg: over many such
studies at most 5 % of the merges called above or below are so by chance; in one study the errors
come together, since all merges are compared with one base on the same questions. A method's mean
gain is tested in the population that the study declares, and corrected by Holm for all rows of its
reference: 5 % chance of any false verdict.</li>
<li><b>Shares of merges above</b> say little by themselves: merges share the questions and the base,
so that without any gain a share of 0 or of 100 % is common. Their interval is over questions; the
CSV files have the range of shares without any gain beside it.</li>
<li><b>The best of several checkpoints</b> by its scores is flattered. On all questions, a merge is
above the best of its members where it is above every one of them (intersection-union test); the
interval is that of multiple comparisons with the best (Hsu). The gain to the one that scored best
is at most as large as the true one on average; <code>gain_corrected</code> takes a bootstrap's
estimate of that bias away. The table in the paper's manner chooses and compares on all
questions.</li>
<li><b>Equal</b> means within the margin that the study declares, by two one-sided tests, corrected
by Holm. <b>Not told apart</b> is not equal: the questions are too few to see a difference as small
as the interval is wide.</li>
</ul>
"""
