"""Numbers in print: differences with their sign, intervals, shares."""

import math

MISSING = "–"


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign; a dash for a missing one, no sign on what rounds to zero."""
    if math.isnan(value):
        return MISSING
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def interval(low: float, high: float) -> str:
    """An interval in print, `+0.12 to +0.80`; a dash where there is none."""
    return MISSING if math.isnan(low) else f"{signed(low)} to {signed(high)}"


def percent(value: float) -> str:
    """A share in print, `53 %`; a dash for a missing one."""
    return MISSING if math.isnan(value) else f"{value:.0f} %"
