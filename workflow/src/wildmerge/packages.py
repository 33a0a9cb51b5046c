"""Models and data that travel in Python packages: a wheel by name, version and sha256."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

from wildmerge import WildmergeError
from wildmerge.files import check_name, sha256_file

# What a wheel may unpack to: text becomes ten times smaller at most, weights not at all.
_LARGEST_RATIO = 25
_SMALLEST_LIMIT = 100_000_000  # bytes; below it nothing is a bomb


def fetch_wheel(name: str, version: str, sha256: str, folder: str | Path) -> Path:
    """Bring a package's wheel into `folder` and check its bytes; nothing is installed.

    If the environment names a folder in WILDMERGE_WHEELS, a wheel that already lies there is used
    (still checked) and a fetched one is kept there for the next time.

    Args:
        name: of the package, as pip knows it.
        version: of the package.
        sha256: 64 hexadecimal digits of the wheel.
        folder: an existing folder.

    Returns:
        The wheel's path.

    Raises:
        WildmergeError: pip cannot fetch it, or the digest differs.
    """
    folder = Path(folder)
    kept = os.environ.get("WILDMERGE_WHEELS")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if kept:
        for wheel in sorted(Path(kept).glob(pattern)):
            if sha256_file(wheel) == sha256:
                return wheel
    # fmt: off
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--no-deps", "--only-binary", ":all:", "--dest", str(folder), f"{name}=={version}",
    ]
    # fmt: on
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(folder.glob(pattern))
    if done.returncode or not wheels:
        raise WildmergeError(
            f"Expected pip to download the wheel of {name} {version}, but it ended with code "
            f"{done.returncode}: {done.stderr.strip() or 'no wheel of that name arrived'}. Check "
            f"the network or pip's settings and run again, or download the wheel elsewhere and "
            f"name its folder in the environment variable WILDMERGE_WHEELS."
        )
    wheel = wheels[0]
    if (found := sha256_file(wheel)) != sha256:
        raise WildmergeError(
            f"Expected the wheel of {name} {version} to have sha256 {sha256}, but {wheel.name} has "
            f"{found}. The file was damaged or replaced on its way; nothing of it was used. "
            f"Run again, and correct the digest only if you know why it changed."
        )
    if kept:
        Path(kept).mkdir(parents=True, exist_ok=True)
        part = Path(kept) / f".{wheel.name}.{os.getpid()}"
        shutil.copyfile(wheel, part)
        os.replace(part, Path(kept) / wheel.name)
    return wheel


def unpack(wheel: str | Path, prefix: str, folder: str | Path) -> list[Path]:
    """Unpack the files of a wheel whose name starts with `prefix` to `folder`, by their rest.

    A `prefix` that is a file's whole name unpacks that file under its last name part.

    Args:
        wheel: the wheel's path.
        prefix: what the names of the wanted files begin with; "" for all.
        folder: where they are put.

    Returns:
        The written paths.

    Raises:
        WildmergeError: the wheel has no such file, one whose name leads out of the folder, or
            one that unpacks to many times its size.
    """
    written = []
    with zipfile.ZipFile(wheel) as archive:
        wanted: list[tuple[zipfile.ZipInfo, Path]] = []
        for info in archive.infolist():
            if not info.filename.startswith(prefix) or info.is_dir():
                continue
            rest = info.filename[len(prefix) :] or PurePosixPath(prefix).name
            if prefix:
                rest = rest.removeprefix("/")
            name = check_name(rest, f"package file {Path(wheel).name}")
            wanted.append((info, Path(folder) / name))
        # `open` gives no more bytes of a file than its size as it stands here.
        total = sum(info.file_size for info, _ in wanted)
        limit = max(_SMALLEST_LIMIT, _LARGEST_RATIO * Path(wheel).stat().st_size)
        if total > limit:
            raise WildmergeError(
                f"At most {limit / 1e6:.0f} MB were expected in the package file "
                f"{Path(wheel).name}, but it would unpack to {total / 1e6:.0f} MB. Nothing of it "
                "was unpacked. Check the version in the sheet that names the package."
            )
        for info, target in wanted:
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, open(target, "wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            written.append(target)
    if not written:
        raise WildmergeError(
            f"Expected the package file {Path(wheel).name} to hold {prefix!r}, but nothing in it "
            f"has a name that starts so. Check the version in the sheet that names the package."
        )
    return written
