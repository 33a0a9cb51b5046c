"""Data sets that are unpacked for a while, not into the user's cache."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def no_datasets_cache() -> Iterator[None]:
    """Let `datasets` unpack into a folder that goes away, not into the user's home."""
    import datasets

    kept = datasets.config.HF_DATASETS_CACHE
    with tempfile.TemporaryDirectory(prefix="wildmerge-") as folder:
        datasets.config.HF_DATASETS_CACHE = Path(folder)
        datasets.disable_progress_bars()
        try:
            yield
        finally:
            datasets.config.HF_DATASETS_CACHE = kept
