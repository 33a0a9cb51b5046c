"""From scores to tidy tables, differences, intervals and tests."""

from . import scores as scores, stats as stats
from .comparisons import compare_study as compare_study, report_two as report_two
from .digests import check_digests as check_digests
from .scores import MODEL as MODEL, read_table as read_table, sweep as sweep
