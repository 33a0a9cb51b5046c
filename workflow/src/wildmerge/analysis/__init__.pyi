"""From scores to tidy tables, differences, intervals and tests."""

from . import power as power, questions as questions, scores as scores, stats as stats
from .calibration import calibrate_study as calibrate_study
from .comparisons import FRAMES as FRAMES, compare_study as compare_study, report_two as report_two
from .digests import check_digests as check_digests
from .outcomes import (
    Facts as Facts,
    gather as gather,
    read_study as read_study,
    write_outcomes as write_outcomes,
)
from .scores import MODEL as MODEL, read_table as read_table, sweep as sweep
