"""A model on a suite of questions: prompts, scores, every question's outcome."""

from .asking import has_template as has_template
from .export import export as export
from .outcomes import COMPARED_OUTCOMES as COMPARED_OUTCOMES, NEGATIVE_BITS as NEGATIVE_BITS
from .prompts import offline as offline, tokenize as tokenize, tokenizer_digest as tokenizer_digest
from .scoring import evaluate as evaluate
from .shared_prefix.backend import lm_eval_command_line as lm_eval_command_line
from .suites import datasets_of as datasets_of, fetch_suite as fetch_suite
