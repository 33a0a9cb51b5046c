"""Words that several parts say: quantities as people do, and what a log says of another try."""

import math

# The end of a job's log where trying again is in vain; the run that reads it there does not.
NO_OTHER_TRY = "Another try would end the same way, so none is made."


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 0.3 s, 45 s, 12 min, 3 h 20 min, 2 d 4 h; `unknown` for none."""
    if seconds is None or math.isnan(seconds):
        return "unknown"
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
