"""The seven methods written plainly after the paper's equations, in float64 with numpy's SVD.

Slow and unhurried on purpose: the oracle of the tests and the yardstick of the benchmark. `svd` may
be another factorisation with numpy's signature.
"""

import numpy as np


def task_arithmetic(base, experts, combine, lam):
    total = sum(expert - base for expert in experts)
    return lam * (total / len(experts) if combine == "mean" else total)


def ties(base, experts, combine, density, lam):
    trimmed = []
    for expert in experts:
        delta = expert - base
        kept = max(1, int(density * delta.size))
        order = np.argsort(-np.abs(delta), axis=None, kind="stable")
        mask = np.zeros(delta.size, dtype=bool)
        mask[order[:kept]] = True
        trimmed.append(np.where(mask.reshape(delta.shape), delta, 0.0))
    trimmed = np.stack(trimmed)
    elected = np.where(trimmed.sum(0) >= 0, 1.0, -1.0)
    agreeing = np.sign(trimmed) == elected
    total = (trimmed * agreeing).sum(0)
    return lam * (total / np.maximum(agreeing.sum(0), 1) if combine == "mean" else total)


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


def ties_sb(base, experts, combine, density, lam, beta, svd=_svd):
    return boost(ties(base, experts, combine, density, lam), beta, svd)


METHODS = {
    "task_arithmetic": task_arithmetic,
    "ties": ties,
    "model_stock": model_stock,
    "tsv_m": tsv_m,
    "iso_c": iso_c,
    "task_arithmetic_sb": task_arithmetic_sb,
    "ties_sb": ties_sb,
}


def update(method, base, experts, parameters, projection=True):
    """The update of one tensor in float64; arrays in, array out."""
    base = np.asarray(base, dtype=np.float64)
    experts = [np.asarray(expert, dtype=np.float64) for expert in experts]
    # All singular values count, as in the paper.
    arguments = {"lam" if k == "lambda" else k: v for k, v in parameters.items() if k != "rank"}
    if not projection and method in ("tsv_m", "iso_c"):
        return task_arithmetic(base, experts, "mean", arguments["lam"])
    if not projection and method.endswith("_sb"):
        method = method.removesuffix("_sb")
        del arguments["beta"]
    return METHODS[method](base, experts, **arguments)
