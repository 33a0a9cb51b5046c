"""HTML from the templates of this room: every text is escaped unless it is `Markup`."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from wildmerge.words import duration

from .glossary import GLOSSARY
from .numbers import MISSING, interval, percent, signed

ASSETS = Path(__file__).with_name("assets")
_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Table:
    """A table to print.

    Attributes:
        header: the columns' titles.
        rows: their cells: texts, numbers, or `Markup`; None and NaN are printed as a dash.
        wide: the columns that hold prose, counted from 0.
        names: how many columns, from the left, name the row. A line stands above a row that begins
            a new first name.
        kinds: where the table sorts and filters in the browser, what each column holds: `text`,
            `choice` (few different values) or `number`.
        identity: the table's id in the page, for links and tests.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    wide: Collection[int] = ()
    names: int = 1
    kinds: Sequence[str] = ()
    identity: str = ""


def render(template: str, /, **view: object) -> Markup:
    """The text of a template, all that it printed escaped.

    Args:
        template: the name of a file in `templates/`, without `.html.jinja`.
        view: what it prints; a name that the template uses and the view lacks is an error.
    """
    return Markup(_environment().get_template(f"{template}.html.jinja").render(**view))


def asset(name: str) -> Markup:
    """A style sheet or script to stand inside the page, without its link to a source map."""
    text = (ASSETS / name).read_text(encoding="utf-8")
    return Markup(text.split("//# sourceMappingURL=")[0])


def verdict(word: str) -> Markup:
    """A verdict with its colour."""
    known = word if word in ("above", "below", "equal") else "open"
    return Markup('<span class="{}">{}</span>').format(known, word)


def listed(names: Sequence[str | Markup]) -> Markup:
    """Names in a sentence, escaped: `a, b and c`."""
    if len(names) == 1:
        return escape(names[0])
    return Markup("{} and {}").format(Markup(", ").join(names[:-1]), names[-1])


def _missing(value: object) -> object:
    """What is printed for a value: a dash for none and for NaN (which is not itself)."""
    return MISSING if value is None or value != value else value


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_missing,
    )
    environment.filters |= {
        "signed": signed,
        "interval": interval,
        "percent": percent,
        "duration": duration,
        "listed": listed,
        "verdict": verdict,
    }
    environment.globals |= {"asset": asset, "GLOSSARY": GLOSSARY}
    return environment
