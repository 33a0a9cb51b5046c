"""What a checkpoint is: made ordinary, held against its base, measured, fine-tuned."""

from .companions import (
    CHAT_TEMPLATES as CHAT_TEMPLATES,
    CONFIG as CONFIG,
    CONVERSIONS as CONVERSIONS,
    GENERATION as GENERATION,
    SMALL_FILES as SMALL_FILES,
    TOKENIZER_FILES as TOKENIZER_FILES,
    TOKENIZERS as TOKENIZERS,
)
from .conversions import convert as convert
from .preview import Preview as Preview, judge as judge, preview_checkpoint as preview_checkpoint
from .similarity import gram_matrices as gram_matrices
from .training import make_expert as make_expert
from .training_texts import write_training_texts as write_training_texts
from .verdict import families as families, measure as measure
