"""Whether results are about the same weights wherever they name a model."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from wildmerge import WildmergeError
from wildmerge.files import read_json
from wildmerge.study import IDENTITY


def check_digests(paths: Iterable[str | Path | None]) -> None:
    """Hold the digests in score files and merge summaries against each other.

    Args:
        paths: of both kinds; what is None or not there is passed over.

    Raises:
        WildmergeError: a model has one digest in one of the files and another in another.
    """
    first: dict[str, tuple[str, str | Path]] = {}
    for path in dict.fromkeys(paths):
        if path is None or not Path(path).exists():
            continue
        for name, digest in _named(read_json(path)):
            known, source = first.setdefault(name, (digest, path))
            if digest != known:
                raise WildmergeError(
                    f"The same weights were expected under the name {name}, but {source} was made "
                    f"of those with the digest {known}, and {path} of those with {digest}: they "
                    "changed in between. Run again: in a folder of yours that is noticed, and what "
                    "depends on them is made again. If this comes once more, delete the folder "
                    f"resources/checkpoints/{name}, if there is one, and both files, so that they "
                    "are made again."
                )


def _named(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The models whose digests a score file or summary tells: base/checkpoint, or with a recipe."""
    base, subset, recipe = (content[key] for key in ("base", "subset", "recipe"))
    model = f"{base}/{subset}" if recipe == IDENTITY else f"{base}/{subset}/{recipe}"
    for key in ("model_digest", "output_digest"):
        if content.get(key):
            yield model, content[key]
    for name, digest in content.get("inputs", {}).items():
        yield f"{base}/{name}", digest
