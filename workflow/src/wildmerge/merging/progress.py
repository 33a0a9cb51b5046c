"""How far a merge is, in its log."""

import logging
import time

_log = logging.getLogger(__name__)

# Seconds between two lines.
_PAUSE = 5


class MergeProgress:
    """A line in the log every few seconds: how much is read, how fast, how long it will take.

    Args:
        where: the merge in words.
        total: bytes to read.
    """

    def __init__(self, where: str, total: int):
        self._where, self._total, self._done = where, total, 0
        self._start = self._last = time.monotonic()

    def add(self, nbytes: int) -> None:
        """So many bytes more are merged."""
        self._done += nbytes
        now = time.monotonic()
        if now - self._last >= _PAUSE or self._done == self._total:
            self._last = now
            speed = self._done / (now - self._start)
            _log.info(
                "%s: %.2f of %.2f GB, %.2f GB/s, %.0f s left",
                self._where,
                self._done / 1e9,
                self._total / 1e9,
                speed / 1e9,
                (self._total - self._done) / speed,
            )
