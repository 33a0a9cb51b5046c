"""Simulated studies with a known truth, in the files that real merges and evaluations leave."""

import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

# Gain in points at n = 12 and share of questions whose outcome a merge draws anew.
TRAITS = {
    "task_arithmetic": (1.5, 0.15),
    "model_stock": (0.1, 0.03),
    "ties": (0.3, 0.06),
    "tsv_m": (-3.0, 0.3),
    "iso_c": (-6.0, 0.4),
    "task_arithmetic_sb": (1.0, 0.25),
    "ties_sb": (0.35, 0.07),
}
RECIPES = list(TRAITS)
BASE = ("base", 0, 0, [], "identity", 0.0, 0.0)
TASKS = {"arc_easy": 300, "piqa": 250, "boolq": 200, "mmlu": 400}


def outcomes(rng, base, chance, gain, churn):
    """Right or wrong of a model that redraws a share of the base's answers.

    base: (questions,) bool; chance: (questions,) the base's probability of being right;
    gain: points that the model's probabilities lie above; churn: fraction redrawn, wide enough
    that chance + gain / churn stays within 0 and 1. Returns (questions,) bool.
    """
    redrawn = rng.random(base.shape) < churn
    return np.where(redrawn, rng.random(base.shape) < chance + gain / 100 / churn, base)


def evaluate(folder, base, suite, rows, tasks, rng):
    """Write the files of models of one base; returns their plan.

    rows: (subset, n, draw, members, recipe, true gain in points, churn), the base first.
    """
    task = np.repeat(np.arange(len(tasks)), list(tasks.values()))
    chance = rng.uniform(0.35, 0.6, len(tasks))[task]
    right = rng.random(task.size) < chance
    pool, plan = len({name for _, _, _, members, *_ in rows for name in members}), []
    for subset, n, draw, members, recipe, gain, churn in rows:
        row = dict(base=base, subset=subset, n=n, draw=draw, members=list(members), recipe=recipe,
                   suite=suite, pool=pool)  # fmt: skip
        correct = outcomes(rng, right, chance, gain, churn) if churn else right
        plan.append(row | write(folder, row, correct, tasks, task, churn, rng))
    return plan


def study(folder, bases=("sim",), pool=12, sizes=None, recipes=RECIPES, tasks=TASKS, seed=0):
    """Write a simulated study below `folder`; returns the plan that aggregate.py reads.

    sizes: n -> number of draws. Checkpoint i of a base is worth (i - pool / 2) / 4 points less
    half a point; a merge gains its recipe's points times n / pool, and its members' mean worth
    times the recipe's churn.
    """
    sizes = sizes or {2: 15, 4: 15, 6: 15, 8: 15, 10: 15, 12: 1}
    plan = []
    for number, base in enumerate(bases):
        rng = np.random.default_rng([seed, number])
        names = [f"expert-{i + 1:02d}" for i in range(pool)]
        worth = {name: (i - pool / 2) / 4 - 0.5 for i, name in enumerate(names)}
        rows = [BASE, *((m, 1, 0, [m], "identity", worth[m], 0.3) for m in names)]
        for n, draws in sizes.items():
            subsets = list(itertools.combinations(names, n))
            chosen = rng.permutation(len(subsets))[:draws]
            for draw, index in enumerate(chosen, start=1):
                members = subsets[index]
                for recipe in recipes:
                    gain, churn = TRAITS[recipe]
                    gain = gain * n / pool + np.mean([worth[m] for m in members]) * churn
                    rows.append((f"n{n:02d}-{draw:02d}", n, draw, members, recipe, gain, churn))
        plan += evaluate(folder, base, "sim", rows, tasks, rng)
    return plan


def ablation(folder, recipes, bases=("sim",), tasks=TASKS, seed=0):
    """Write a simulated study of sweep points at n = 12; returns the plan.

    recipes: name -> {parameters}; gains fall with lambda squared, the more on a sum.
    """
    members = [f"expert-{i + 1:02d}" for i in range(12)]
    plan = []
    for number, base in enumerate(bases):
        rows = [BASE]
        for recipe, entry in recipes.items():
            parameters = entry["parameters"]
            push = parameters["lambda"] * (3 if parameters["combine"] == "sum" else 1)
            push *= parameters.get("density", 0.3) + 0.7
            churn = min(0.6, 0.05 + 0.04 * push)
            rows.append(("n12-01", 12, 1, members, recipe, 1.5 - 0.2 * push**2, churn))
        plan += evaluate(folder, base, "sim", rows, tasks, np.random.default_rng([seed, number]))
    return plan


def homogeneous(folder, bases=("sim",), recipes=RECIPES, seed=0):
    """Write a simulated study of two domains, each with a suite, merged apart and together."""
    names = {domain: [f"{domain}-{i}" for i in (1, 2, 3)] for domain in ("medical", "math")}
    groups = names | {"medical-math": [*names["medical"], *names["math"]]}
    plan = []
    for number, base in enumerate(bases):
        for place, suite in enumerate(names):
            rng = np.random.default_rng([seed, number, place])
            rows = [BASE]
            for domain, members in names.items():
                gain = 2.0 if domain == suite else -1.0
                rows += [(m, 1, 0, [m], "identity", gain, 0.2) for m in members]
            for group, members in groups.items():
                if suite in group:
                    for recipe in recipes:
                        gain, churn = TRAITS[recipe]
                        rows.append((group, len(members), 0, members, recipe, gain / 2, churn))
            plan += evaluate(folder, base, suite, rows, {f"{suite}_a": 200, f"{suite}_b": 150}, rng)
    return plan


def similarity(models, seed=0, tensors=40, size=200):
    """Gram matrices of random task vectors, as similarity.npz holds them."""
    rng = np.random.default_rng(seed)
    delta = rng.normal(size=(tensors, len(models), size))
    delta += 0.5 * rng.normal(size=(tensors, 1, size)) * rng.choice([-1, 1], (1, len(models), 1))
    delta[:5, : len(models) // 2] = 0  # tensors that some checkpoints left alone
    return {
        "names": np.array([f"model.layers.{t}.weight" for t in range(tensors)]),
        "models": np.array(models),
        "gram": delta @ delta.swapaxes(1, 2),
    }


def likelihoods(correct):
    """Log-likelihoods of two choices, the first of them right: (questions, 2)."""
    rng = np.random.default_rng(int(correct.sum()))  # the study's own stays as it is
    apart = rng.gamma(2.0, 1.0, len(correct)) * np.where(correct, 1, -1)
    return np.stack([apart - 5, np.full(len(correct), -5.0)], axis=1)


def digest(row, recipe="identity"):
    """What stands for the digest of a model's weights."""
    return hashlib.sha256(f"{row['base']} {row['subset']} {recipe}".encode()).hexdigest()


def write(folder, row, correct, tasks, task, churn, rng):
    """Write one model's score, items and summary files; returns their paths."""
    place = Path(folder, row["base"], row["subset"], row["recipe"])
    place.mkdir(parents=True, exist_ok=True)
    suite = row["suite"]
    paths = {"scores": place / f"{suite}.json", "items": place / f"{suite}.items.parquet"}
    paths["summary"] = None
    entries = {}
    for i, (name, questions) in enumerate(tasks.items()):
        value = float(correct[task == i].mean())
        entries[name] = dict(metric="acc", value=value, questions=questions, num_fewshot=0,
                             stderr=(value * (1 - value) / (questions - 1)) ** 0.5, version=1.0,
                             members={name: {"value": value, "questions": questions}})  # fmt: skip
    score = {key: row[key] for key in ("base", "subset", "recipe", "members", "suite")}
    score |= dict(backend="hf", batch_size=8, dtype="float16", device="cpu", seconds=12.5,
                  softmax_dtype="float32",
                  model_digest=digest(row, row["recipe"]), suite_digest="5" * 64, tasks=entries,
                  accuracy=float(np.mean([e["value"] for e in entries.values()])),
                  versions={"lm_eval": "0.4.13", "torch": "2.13.0"})  # fmt: skip
    paths["scores"].write_text(json.dumps(score))
    names = np.repeat(list(tasks), list(tasks.values()))
    items = {
        "task": pa.array(names).dictionary_encode(),
        "member": pa.array(names).dictionary_encode(),
        "doc": pa.array(np.concatenate([np.arange(q) for q in tasks.values()]), pa.int32()),
        "correct": pa.array(correct.astype(np.float32)),
        "target": pa.array(np.zeros(task.size), pa.int16()),
        "loglikelihoods": pa.array(likelihoods(correct).tolist(), pa.list_(pa.float32())),
        "lengths": pa.array([[4, 5]] * task.size, pa.list_(pa.int32())),
        "cluster": pa.array(np.arange(task.size), pa.int32()),
    }
    pa.parquet.write_table(pa.table(items), paths["items"])
    if row["n"] > 1:
        paths["summary"] = place / "summary.json"
        norm = 1 + 200 * churn
        summary = dict(base=row["base"], subset=row["subset"], recipe=row["recipe"],
                       members=row["members"], merge_method=row["recipe"], parameters={},
                       version=1, inputs={m: digest(row | {"subset": m}) for m in row["members"]},
                       norm=norm, output_digest=digest(row, row["recipe"]),
                       norm_rounded=norm * 1.001, tensors={}, warnings=[],
                       seconds=4.2, bytes_read=10**9, bytes_written=3 * 10**8, device="cpu",
                       peak_memory_bytes=2 * 10**9, versions={"mergekit": "0.1.5"},
                       dtype="float16", threads=1)  # fmt: skip
        paths["summary"].write_text(json.dumps(summary))
    return {key: path and str(path) for key, path in paths.items()}
