"""Pieces of HTML that the report is made of."""

import html
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from .numbers import MISSING


def text(value: object) -> str:
    """A value as escaped text; a missing one is a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return MISSING
    return html.escape(str(value))


def table(
    header: Sequence[str], rows: Sequence[Sequence[Any]], wide: Sequence[int] = (), names: int = 1
) -> str:
    """An HTML table of ready cells.

    A line stands above a row that begins a new first name.

    Args:
        header: the columns' titles.
        rows: their cells, escaped.
        wide: the columns that hold prose.
        names: how many columns, from the left, name the row.
    """
    heads = "".join(
        f"<th{' class=text' if i < names or i in wide else ''}>{name}</th>"
        for i, name in enumerate(header)
    )
    lines: list[str] = []
    last = None
    for row in rows:
        first = "".join(f"<th>{cell}</th>" for cell in row[:names])
        cells = "".join(
            f"<td{' class=text' if i in wide else ''}>{cell}</td>"
            for i, cell in enumerate(row[names:], names)
        )
        block = ' class="block"' if names > 1 and row[0] != last else ""
        lines.append(f"<tr{block}>{first}{cells}</tr>")
        last = row[0]
    body = "\n".join(lines)
    return (
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def word(verdict: str) -> str:
    """A verdict with its colour."""
    known = f' class="{verdict}"' if verdict in ("above", "below") else ""
    return f"<span{known}>{verdict}</span>"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
