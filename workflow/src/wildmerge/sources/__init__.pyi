"""Where checkpoints come from: one class a source, the lock, the preflight."""

from ._datasets import (
    DATASETS_LOCK as DATASETS_LOCK,
    fetch_dataset as fetch_dataset,
    pins_of as pins_of,
    resolve_datasets as resolve_datasets,
)
from .fetch import fetch_checkpoint as fetch_checkpoint
from .lock import (
    LOCK as LOCK,
    apply_lock as apply_lock,
    locked_files as locked_files,
    read_lock as read_lock,
    takes_pickles as takes_pickles,
    terms_of as terms_of,
)
from .preflight import UNUSABLE as UNUSABLE, as_table as as_table, judge_rows as judge_rows
from .registry import check_source as check_source, source_of as source_of
from .resolve import resolve_lock as resolve_lock
from .trained import Trained as Trained
