"""The seven methods written plainly after the paper's equations, in float64 with numpy's SVD.

Slow and unhurried on purpose: the oracle of the tests and the yardstick of the benchmark. `svd` may
be another factorisation with numpy's signature.
"""

import hashlib

import numpy as np


def task_arithmetic(base, experts, combine, lam):
    total = sum(expert - base for expert in experts)
    return lam * (total / len(experts) if combine == "mean" else total)


def hashes(size, seed, tensor, digest):
    """The hash of each entry of a tensor, in whole numbers without an upper bound."""
    drawn = hashlib.sha256(f"{seed}\n{tensor}\n{digest}".encode()).digest()
    first, second = int.from_bytes(drawn[:4], "little"), int.from_bytes(drawn[4:8], "little")

    def of(position):
        x = position ^ first
        x ^= x >> 16
        x = x * 0x21F0AAAD % 2**32
        x ^= x >> 15
        x ^= second
        x = x * 0x735A2D97 % 2**32
        return x ^ x >> 15

    return np.array([of(position) for position in range(size)])


def trimmed(delta, density, *salt):
    """What stays of a task vector sorted by magnitude, then by hash."""
    magnitudes, drawn = np.abs(delta).ravel(), hashes(delta.size, *salt)
    order = np.lexsort((drawn, magnitudes))[::-1]
    mask = np.zeros(delta.size, dtype=bool)
    mask[order[: max(1, int(density * delta.size))]] = True
    return np.where(mask.reshape(delta.shape), delta, 0.0)


def ties(base, experts, combine, density, lam, tensor="", digests=None, seed=0):
    digests = digests or [str(i) for i in range(len(experts))]
    deltas = [expert - base for expert in experts]
    return elected(
        [trimmed(d, density, seed, tensor, x) for d, x in zip(deltas, digests, strict=True)],
        combine,
        lam,
    )


def elected(trimmed, combine, lam):
    """Sign and merge what stayed of each task vector."""
    trimmed = np.stack(trimmed)
    elected = np.where(trimmed.sum(0) >= 0, 1.0, -1.0)
    agreeing = np.sign(trimmed) == elected
    total = (trimmed * agreeing).sum(0)
    return lam * (total / np.maximum(agreeing.sum(0), 1) if combine == "mean" else total)


def random_signs(base, experts, combine, lam, tensor="", digests=None, seed=0):
    digests = digests or [str(i) for i in range(len(experts))]
    drawn = [hashlib.sha256(f"{seed}\n{tensor}\n{x}".encode()).digest()[0] % 2 for x in digests]
    turned = [
        base + (expert - base if up else base - expert)
        for expert, up in zip(experts, drawn, strict=True)
    ]
    return task_arithmetic(base, turned, combine, lam)


def model_stock(base, experts):
    deltas = [(expert - base).ravel() for expert in experts]
    n = len(deltas)
    cosines = []
    for i in range(n):
        for j in range(i):
            product = np.linalg.norm(deltas[i]) * np.linalg.norm(deltas[j])
            cosines.append(deltas[i] @ deltas[j] / max(product, 1e-6))
    cosine = np.mean(cosines)
    t = n * cosine / (1 + (n - 1) * cosine)
    return t * (np.mean(experts, axis=0) - base)


def _svd(matrix):
    return np.linalg.svd(matrix, full_matrices=False)


def tsv_m(base, experts, combine, lam, svd=_svd):
    kept = min(base.shape) // len(experts)
    us, spectra, vts = [], [], []
    for expert in experts:
        u, s, vt = svd(expert - base)
        us.append(u[:, :kept])
        spectra.append(s[:kept])
        vts.append(vt[:kept])
    pu, _, qut = svd(np.concatenate(us, 1))
    pv, _, qvt = svd(np.concatenate(vts, 0))
    update = lam * ((pu @ qut) * np.concatenate(spectra)) @ (pv @ qvt)
    return update / len(experts) if combine == "mean" else update


def iso_c(base, experts, combine, lam, svd=_svd):
    u, s, vt = svd(task_arithmetic(base, experts, combine, 1.0))
    return lam * s.mean() * (u @ vt)


def boost(update, beta, svd=_svd):
    u, s, vt = svd(update)
    share = np.cumsum(s) / s.sum()
    cutoff = s[np.argmax(share >= beta * share[-1])]
    return (u * np.maximum(s, cutoff)) @ vt


def task_arithmetic_sb(base, experts, combine, lam, beta, svd=_svd):
    return boost(task_arithmetic(base, experts, combine, lam), beta, svd)


def ties_sb(base, experts, combine, density, lam, beta, svd=_svd, **salt):
    return boost(ties(base, experts, combine, density, lam, **salt), beta, svd)


METHODS = {
    "task_arithmetic": task_arithmetic,
    "ties_hashed": ties,
    "random_signs": random_signs,
    "model_stock": model_stock,
    "tsv_m": tsv_m,
    "iso_c": iso_c,
    "task_arithmetic_sb": task_arithmetic_sb,
    "ties_sb": ties_sb,
}


def update(method, base, experts, parameters, projection=True, **salt):
    """The update of one tensor in float64; arrays in, array out.

    TIES' choice among equal entries depends on `tensor`, its name, and the experts' `digests`.
    """
    base = np.asarray(base, dtype=np.float64)
    experts = [np.asarray(expert, dtype=np.float64) for expert in experts]
    # All singular values count, as in the paper.
    arguments = {"lam" if k == "lambda" else k: v for k, v in parameters.items() if k != "rank"}
    if not projection and method in ("tsv_m", "iso_c"):
        return task_arithmetic(base, experts, "mean", arguments["lam"])
    if not projection and method.endswith("_sb"):
        method = {"task_arithmetic_sb": "task_arithmetic", "ties_sb": "ties_hashed"}[method]
        del arguments["beta"]
    if method.startswith(("ties", "random")):
        arguments |= salt
        assert arguments.pop("trim", "tensor") == "tensor"
    return METHODS[method](base, experts, **arguments)
