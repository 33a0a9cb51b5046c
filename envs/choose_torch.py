"""Choose the build of torch for this machine: CUDA 13, CUDA 12.6 or CPU. For `make env`.

Prints the requirement for pip, and on standard error which build it is and why. Needs Python and
pip alone: torch is not installed yet.
"""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

# Build -> the oldest driver (major version), the oldest and the newest cards (compute capability).
# CUDA 13 needs driver 580 and has dropped the cards before Turing; CUDA 12.6 runs on every driver
# of CUDA 12 (NVIDIA's minor version compatibility) and knows no card after Hopper.
CUDA = {"cu130": (580, 7.5, 99.0), "cu126": (525, 5.0, 9.0)}
NAMES = {"cu130": "CUDA 13", "cu126": "CUDA 12.6", "cpu": "CPU"}
INDEX = "WILDMERGE_TORCH_INDEX"
LOCK = Path(__file__).parents[1] / "requirements.lock"


def cards() -> list[tuple[str, float, float]]:
    """The NVIDIA cards here: name, driver's version (major.minor), compute capability."""
    fields = "--query-gpu=name,driver_version,compute_cap"
    try:
        done = subprocess.run(
            ["nvidia-smi", fields, "--format=csv,noheader"], capture_output=True, text=True
        )
    except OSError:
        return []
    found = re.findall(r"^(.+), (\d+\.\d+)[\d.]*, (\d+\.\d+)$", done.stdout, re.MULTILINE)
    return [(name, float(driver), float(capability)) for name, driver, capability in found]


def choose(found: list[tuple[str, float, float]]) -> tuple[str, str]:
    """The newest build that works on all cards, and why it is this one."""
    if not found:
        return "cpu", "no NVIDIA card was found (nvidia-smi names none)"
    driver = min(card[1] for card in found)
    oldest, newest = min(card[2] for card in found), max(card[2] for card in found)
    what = f"{', '.join(sorted({card[0] for card in found}))} with driver {driver:g}"
    for build, (needed, first, last) in CUDA.items():
        if driver >= needed and first <= oldest and newest <= last:
            return build, f"{what} and compute capability {oldest:g} found"
    return "cpu", (
        f"{what} and compute capability {oldest:g} to {newest:g} fits no locked build for CUDA: "
        + "; ".join(
            f"{NAMES[build]} needs driver {needed} and cards of {first:g}"
            + (f" to {last:g}" if last < 99 else " or newer")
            for build, (needed, first, last) in CUDA.items()
        )
    )


def offered() -> set[str]:
    """The versions of torch that pip can bring, by its own settings and by INDEX."""
    extra = ["--extra-index-url", os.environ[INDEX]] if os.environ.get(INDEX) else []
    command = [sys.executable, "-m", "pip", "index", "versions", "torch", *extra]
    done = subprocess.run(command, capture_output=True, text=True)
    listed = re.search(r"^Available versions: (.*)$", done.stdout, re.MULTILINE)
    return set(listed[1].split(", ")) if listed else set()


def requirement(build: str, version: str, known: set[str]) -> tuple[str, str]:
    """What pip shall install, and what to say of it.

    Args:
        build: one of NAMES.
        version: torch's, as locked.
        known: what pip can bring.

    Raises:
        SystemExit: pip can't bring that build.
    """
    if f"{version}+{build}" in known:
        return f"torch=={version}+{build}", ""
    way_out = (
        f"Name torch's own package index for {NAMES[build]} in the environment variable {INDEX}, "
        "or in pip's configuration"
    )
    if build == "cu126":
        raise SystemExit(
            f"A build of torch {version} for {NAMES[build]} was expected, but no index that pip "
            f"knows has one. {way_out}, or take another build: make env TORCH=cpu."
        )
    if build == "cpu" and platform.system() == "Linux":
        return f"torch=={version}", (
            f" No index that pip knows has a build for the CPU alone; the usual one computes on "
            f"it, too, and brings several GB of CUDA's libraries. {way_out} for the small one."
        )
    # What the usual index calls by the bare version: CUDA 13 on Linux, the CPU's elsewhere.
    return f"torch==={version}", ""


def main(asked: str) -> None:
    """Print the requirement for a build that was asked for, or for the one that fits."""
    if asked and asked not in NAMES:
        raise SystemExit(
            f"TORCH: one of {', '.join(NAMES)} was expected, found {asked!r}. Correct it, or leave "
            "it out: the build that fits this machine is then chosen."
        )
    build, why = (asked, f"TORCH={asked} was asked for") if asked else choose(cards())
    pinned = re.search(r"^torch==(\S+)$", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    if pinned is None:
        raise SystemExit(f"{LOCK}: a line torch==VERSION was expected, found none. Restore it.")
    version = pinned[1]
    wanted, more = requirement(build, version, offered())
    other = "" if asked else f" Another one: make env TORCH={'|'.join(NAMES)}."
    print(f"torch {version} for {NAMES[build]}: {why}.{more}{other}", file=sys.stderr)
    print(wanted)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
