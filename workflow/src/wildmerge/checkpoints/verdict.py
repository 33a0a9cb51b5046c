"""The verdict on a checkpoint, from its task vector (W_i - W_0): norms, digests, ranks, family.

Nothing keeps more than a tensor of the base and one of an expert in memory; sums run in float64,
since 10^8 squares summed in float32 lose the second digit.
"""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wildmerge import WildmergeError, __version__
from wildmerge.files import read_json
from wildmerge.tensors import Digest, Weights, remember, unchanged

from .companions import CONVERSIONS
from .compatibility import TOKEN_ROWS, Findings, find_differences, read_headers

SLICE = 1 << 20  # elements of a tensor that are handled at once
RANK_ROWS = 256  # rows that the rank of a delta is looked at on
UNRELATED = 0.5  # relative norm from which on a checkpoint is no fine-tune of its base
STRANGER = 3.0  # ancestry score from which on another ancestor is probable
LARGE = 0.1  # relative norm that deserves a word


def _squares(base: torch.Tensor, expert: torch.Tensor) -> tuple[float, float]:
    """Squared norms of W_i - W_0 and of W_0, summed in float64; two flat tensors of one size."""
    delta = weight = 0.0
    for ours, theirs in zip(base.split(SLICE), expert.split(SLICE), strict=True):
        ours = ours.double()
        difference = theirs.double() - ours
        delta += torch.dot(difference, difference).item()
        weight += torch.dot(ours, ours).item()
    return delta, weight


def sampled_rank(base: torch.Tensor, expert: torch.Tensor) -> int:
    """The numerical rank of W_i - W_0, measured on up to 256 rows at even distances.

    Singular values below a thousandth of the largest count as zero. A merged adapter shows here by
    its own rank unless rounding to 16 bits has filled up its null space (then it is no longer of
    low rank).

    Args:
        base: W_0, (m, n).
        expert: W_i, (m, n).

    Returns:
        The rank; min(m, n, 256) for a delta of full rank.
    """
    rows = torch.linspace(0, base.shape[0] - 1, min(base.shape[0], RANK_ROWS)).round().long()
    delta = expert[rows].double() - base[rows].double()
    # Products of rows with rows or of columns with columns, whichever are fewer.
    gram = delta @ delta.T if delta.shape[0] <= delta.shape[1] else delta.T @ delta
    values = torch.linalg.eigvalsh(gram)
    return int((values > values[-1] * 1e-6).sum()) if values[-1] > 0 else 0


def measure(base: str | Path, expert: str | Path, row: dict) -> dict:
    """Measure a checkpoint's task vector and say whether it can be merged with its base.

    Args:
        base: the base's checkpoint folder.
        expert: the checkpoint's folder.
        row: the checkpoint's row of models.tsv.

    Returns:
        What `results/task_vectors/{base}/{model}.json` holds: `compatible`, the `reasons` against
        it (`overridable` if the sheet's `admit` may set them aside), `conversions` made at the
        download, `warnings`, digests of both sets of weights, norm (L2) and relative norm of the
        whole delta and of every tensor, and the rank where a tensor's delta is of low rank. A
        checkpoint that cannot be read is refused by its reasons.

    Raises:
        WildmergeError: the base cannot be read, its numbers are not finite, or weights are written
            while they are read.
    """
    start = time.monotonic()
    expert = Path(expert)
    verdict = {key: row[key] for key in ("base", "model", "repo", "revision")}
    verdict |= {"compatible": False, "overridable": False, "reasons": [], "conversions": []}
    verdict |= {"warnings": [], "digest": None, "base_digest": None, "norm": None}
    verdict |= {"relative_norm": None, "tensors": {}}
    record = read_json(expert / CONVERSIONS) if (expert / CONVERSIONS).exists() else {}
    verdict["conversions"] = record.get("conversions", [])
    ours, base_headers = Weights(base), read_headers(base)
    try:
        theirs, findings = Weights(expert), find_differences(base_headers, read_headers(expert))
    except WildmergeError as error:
        findings = Findings(refusals=[str(error)])
    findings.doubts += record.get("doubts", [])
    if not findings.refusals:
        where = f"Measuring {verdict['base']}/{verdict['model']}"
        with unchanged([ours, theirs], where) as (of_ours, of_theirs):
            _stream(ours, theirs, verdict, findings)
        if verdict["digest"]:
            # What follows takes these weights for the measured ones while their files stay.
            remember(ours, verdict["base_digest"], of_ours)
            remember(theirs, verdict["digest"], of_theirs)
    verdict["reasons"] = findings.refusals + findings.doubts
    verdict["warnings"] = findings.warnings
    verdict["overridable"] = bool(findings.doubts and not findings.refusals)
    verdict["compatible"] = not verdict["reasons"]
    verdict["versions"] = {"wildmerge": __version__, "torch": torch.__version__}
    verdict["seconds"] = time.monotonic() - start
    return verdict


def _stream(ours: Weights, theirs: Weights, verdict: dict, findings: Findings) -> None:
    """Read both sets of weights once, tensor by tensor, and complete `verdict` and `findings`."""
    digest, base_digest = Digest(), Digest()
    total = total_base = 0.0
    broken, low, matrices = [], {}, 0
    for name in sorted(ours):
        ours_tensor = ours.read(name)
        try:
            tensor = theirs.read(name)
        except WildmergeError as error:
            findings.refusals.append(str(error))
            return
        base_digest.add(name, ours_tensor)
        digest.add(name, tensor)
        delta, weight = _squares(ours_tensor.flatten(), tensor.flatten())
        if not math.isfinite(weight):
            raise _broken_base(ours, name)
        entry: dict[str, Any] = {"shape": list(tensor.shape), "norm": None, "relative": None}
        verdict["tensors"][name] = entry
        if not math.isfinite(delta):
            broken.append(name)
            continue
        entry["norm"] = math.sqrt(delta)
        entry["relative"] = math.sqrt(delta / weight) if weight else None
        total, total_base = total + delta, total_base + weight
        if tensor.ndim == 2 and name not in TOKEN_ROWS and delta:
            matrices += 1
            rank = sampled_rank(ours_tensor, tensor)
            # Half of full rank is beyond doubt; spectra that fall steeply come near to full rank.
            if rank <= min(*tensor.shape, RANK_ROWS) // 2:
                entry["rank"] = low[name] = rank
    verdict["digest"], verdict["base_digest"] = digest.hexdigest(), base_digest.hexdigest()
    if broken:
        findings.refusals.append(
            f"NaN or Inf in {len(broken)} tensor(s): {', '.join(broken[:3])}"
            + (" and more" if len(broken) > 3 else "")
        )
        return
    verdict["norm"] = math.sqrt(total)
    verdict["relative_norm"] = relative = math.sqrt(total / total_base)
    if total == 0:
        findings.doubts.append("every weight equals the base's: it is a copy, not a fine-tune")
    elif relative >= UNRELATED:
        findings.doubts.append(
            f"its delta has {relative:.2f} of the base's norm ({UNRELATED} and more is no "
            "fine-tune): its ancestor must be another model of the same shapes"
        )
    elif relative >= LARGE:
        findings.warnings.append(
            f"its delta has {relative:.2f} of the base's norm: much for a fine-tune; it may have "
            "another ancestor or have been pre-trained further"
        )
    if low:
        findings.warnings.append(
            f"the deltas of {len(low)} of {matrices} changed matrices have rank "
            f"{min(low.values())} to {max(low.values())}: a merged adapter or edit; singular "
            "vectors beyond that rank are arbitrary (TSV-M)"
        )


def _broken_base(weights: Weights, name: str) -> WildmergeError:
    return WildmergeError(
        f"Finite numbers were expected in the base's tensor {name}, found NaN or Inf in "
        f"{weights[name].file}. Delete the folder {weights.folder}, so that it is made again."
    )


def ancestry(verdicts: list[dict]) -> dict[str, float]:
    """How far each checkpoint's quietest tensors moved, against its whole family.

    Fine-tuning leaves some tensors (norms, embeddings) nearly where they were, so this is below 1;
    a checkpoint of another ancestor has moved everywhere, by more than its family moves at all.

    Args:
        verdicts: of all checkpoints of one base.

    Returns:
        Model -> the relative norm that nine tenths of its tensors exceed, over the median of the
        others' relative norms. Checkpoints without a norm, and families of fewer than three, are
        left out.
    """
    known = [v for v in verdicts if v["norm"]]
    scores = {}
    for verdict in known if len(known) > 2 else []:
        others = [v["relative_norm"] for v in known if v is not verdict]
        moved = [t["relative"] for t in verdict["tensors"].values() if t["relative"] is not None]
        scores[verdict["model"]] = float(np.quantile(moved, 0.1) / np.median(others))
    return scores


def duplicates(verdicts: list[dict]) -> dict[str, str]:
    """Checkpoints with the weights of another: model -> the first of the same digest."""
    first: dict[str, str] = {}
    copies: dict[str, str] = {}
    for verdict in verdicts:
        digest, model = verdict["digest"], verdict["model"]
        if digest and first.setdefault(digest, model) != model:
            copies[model] = first[digest]
    return copies


def families(
    verdicts: list[dict], admitted: dict[tuple[str, str], str], *, refuse_copies: bool = False
) -> list[dict]:
    """What the verdicts of a study say together: one row a checkpoint, for checkpoints.csv.

    Args:
        verdicts: of all its checkpoints, of any number of bases.
        admitted: (base, model) -> the sheet's reason, where it gives one.
        refuse_copies: whether a checkpoint with the weights of another is not usable.

    Returns:
        Rows with names, `usable`, norms, `ancestry` (see there; empty in a small family) and
        `found`, everything that was said about the checkpoint.
    """
    rows = []
    for base in sorted({v["base"] for v in verdicts}):
        family = [v for v in verdicts if v["base"] == base]
        scores, copies = ancestry(family), duplicates(family)
        for verdict in family:
            model, said = verdict["model"], list(verdict["reasons"])
            score = scores.get(model)
            if score is not None and score >= STRANGER:
                said.append(
                    f"nine tenths of its tensors moved at least {score:.1f} times as far as the "
                    f"median of its family as a whole: its ancestor is probably not {base}"
                )
            doubts = bool(said) or (refuse_copies and model in copies)
            if model in copies:
                said.append(f"it has the same weights as {copies[model]}")
            reason = admitted.get((base, model), "")
            hard = verdict["reasons"] and not verdict["overridable"]
            rows.append(
                {key: verdict[key] for key in ("base", "model", "repo", "revision")}
                | {"usable": not doubts or bool(reason and not hard)}
                | {"norm": verdict["norm"], "relative_norm": verdict["relative_norm"]}
                | {"ancestry": score, "low_rank_tensors": _low_rank(verdict)}
                | {"found": "; ".join(said), "admitted": reason}
                | {"conversions": "; ".join(verdict["conversions"])}
                | {"warnings": "; ".join(verdict["warnings"])}
            )
    return rows


def _low_rank(verdict: dict) -> int:
    return sum("rank" in tensor for tensor in verdict["tensors"].values())
