"""Whether two runs of a study computed the same: results before and after a change of the code.

    python tests/benchmarks/same_bytes.py OLD_RESULTS NEW_RESULTS [--only PREFIX ...] [--common]

Compared are the digests of merged weights and all else in a merge's summary.json, the outcome of
every question (all columns of the Parquet files), score files, verdicts, similarities, mergekit
YAML without its comments, and every CSV. Numbers must be equal to the last bit. Left out is what
may differ between two runs of the same code, or two places: seconds, memory, versions, the origin
of a checkpoint (`repo`, a path where it is a folder). Figures and the report are not compared.

Prints how much was compared, and each difference; exits with 1 if there is any.
"""

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml

LEFT_OUT = {
    *("seconds", "load_seconds", "merge_seconds", "evaluate_seconds", "peak_memory_bytes"),
    *("versions", "repo"),
}


def leaves(value, place: str = "") -> Iterator[tuple[str, object]]:
    """(place, value) of everything in nested objects and lists, without what is left out."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in LEFT_OUT:
                yield from leaves(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list):
        yield f"{place} (how many)", len(value)
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{place}[{number}]")
    else:
        yield place, value


def of_json(path: Path) -> dict:
    return dict(leaves(json.loads(path.read_text(encoding="utf-8"))))


def of_yaml(path: Path) -> dict:
    return dict(leaves(yaml.safe_load(path.read_text(encoding="utf-8"))))


def of_csv(path: Path) -> dict:
    """Place -> cell as it is written; the columns and their order are part of it."""
    with open(path, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    cells = [dict(zip(header, row, strict=True)) for row in rows]
    return dict(leaves({"columns": header, "row": cells}))


def of_parquet(path: Path) -> dict:
    """Column -> its type and its values, all of them."""
    table = pq.read_table(path)
    return {
        field.name: (str(field.type), table[field.name].combine_chunks().to_pylist())
        for field in table.schema
    }


def of_arrays(path: Path) -> dict:
    with np.load(path) as arrays:
        return {
            name: (str(array.dtype), array.shape, array.tobytes()) for name, array in arrays.items()
        }


READERS = {
    ".json": of_json,
    ".yaml": of_yaml,
    ".csv": of_csv,
    ".parquet": of_parquet,
    ".npz": of_arrays,
}


def results(folder: Path, only: list[str]) -> dict[str, Path]:
    """The files that are compared, by their path in the folder."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    return {
        name: path
        for name, path in found.items()
        if path.suffix in READERS
        and not any(part.startswith(".") for part in Path(name).parts)
        and (not only or name.startswith(tuple(only)))
    }


def kind(name: str) -> str:
    """What a file is, for the count: its room and its ending, or its own name in a study."""
    path = Path(name)
    if path.parts[0] == "studies":
        return path.name if len(path.parts) == 3 else f"{path.parts[2]}, {path.suffix}"
    return f"{path.parts[0]}, {''.join(path.suffixes[-2:])}"


def differences(old: Path, new: Path) -> Iterator[str]:
    """Where two files of one kind hold different values."""
    before, after = (READERS[path.suffix](path) for path in (old, new))
    for place in [*before, *(place for place in after if place not in before)]:
        if place not in after:
            yield f"{place}: gone"
        elif place not in before:
            yield f"{place}: new"
        elif repr(before[place]) != repr(after[place]):  # repr: NaN equals itself, 1 is not 1.0
            yield f"{place}: {short(before[place])} -> {short(after[place])}"


def short(value) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="PREFIX", help="such as merges/ or scores/"
    )
    parser.add_argument(
        "--common", action="store_true", help="compare what both have; else all must be in both"
    )
    arguments = parser.parse_args()
    old, new = (results(path, arguments.only) for path in (arguments.old, arguments.new))
    same: Counter[str] = Counter()
    different: Counter[str] = Counter()
    for name in sorted(old.keys() | new.keys()):
        if name in old and name in new:
            found = list(differences(old[name], new[name]))
        elif arguments.common:
            continue
        else:
            found = [f"only in {arguments.old if name in old else arguments.new}"]
        (different if found else same)[kind(name)] += 1
        for line in found[:20]:
            print(f"{name}: {line}")
        if len(found) > 20:
            print(f"{name}: and {len(found) - 20} more")
    for what in sorted(same.keys() | different.keys()):
        print(f"{what:32} {same[what]:5} the same, {different[what]:4} different")
    print(f"{'all':32} {same.total():5} the same, {different.total():4} different")
    return 1 if different or not same else 0


if __name__ == "__main__":
    sys.exit(main())
