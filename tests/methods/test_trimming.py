"""Which entries TIES keeps, above all where many are equally large."""

import numpy as np
import pytest
import references
import torch
from wildmerge.methods import METHODS, Identity, _trimming
from wildmerge.tensors import chunks

TIES = METHODS["ties_hashed"]
KEEP = {"combine": "sum", "density": 0.3, "lambda": 1.0}


def ties(base, experts, digests, parameters=KEEP, tensor="t"):
    identity = Identity(tensor, digests)
    return TIES(base, experts, parameters, projection=True, identity=identity)


def rounded(size, n, steps, seed=0):
    """A base and experts in bfloat16 whose task vectors take few values, up to `steps` or so."""
    generator = torch.Generator().manual_seed(seed)
    base = (torch.randn(size, generator=generator) * 0.02).bfloat16()
    step = 2.0**-13 * steps
    return base, [
        (base.float() + step * torch.randn(size, generator=generator)).bfloat16() for _ in range(n)
    ]


def trimmed(base, expert, density, *salt):
    return references.trimmed((expert.float() - base.float()).numpy(), density, *salt)


@pytest.mark.parametrize("few", [10, 300, 1 << 22], ids="collected below {}".format)
@pytest.mark.parametrize("steps", [0.3, 1, 30])
@pytest.mark.parametrize("density", [1e-5, 0.1, 0.37, 0.9, 1.0])
def test_what_stays_is_that_of_a_sort_by_magnitude_and_hash(few, steps, density, monkeypatch):
    """Bit for bit, whether candidates are counted by all their digits or collected early."""
    monkeypatch.setattr(_trimming, "_FEW", few)
    monkeypatch.setattr(chunks.slices, "__defaults__", (1000,))
    base, (expert,) = rounded(7001, 1, steps)
    for seed in (0, 1):
        parameters = KEEP | {"density": density, "seed": seed}
        found = ties(base, [expert], ["a"], parameters)
        assert np.array_equal(found.numpy(), trimmed(base, expert, density, seed, "t", "a"))
        stay = max(1, int(density * 7001))
        assert found.count_nonzero() == min(stay, (expert != base).sum())


@pytest.mark.parametrize("wrong", [False, True], ids=["right", "wrong"])
@pytest.mark.parametrize("steps", [0.3, 1, 30])
def test_a_sample_saves_walks_and_decides_nothing(steps, wrong, monkeypatch):
    """Of large tensors a sample says where to look; where it is wrong the digits are counted."""
    monkeypatch.setattr(_trimming, "_STRIPS", 64)
    monkeypatch.setattr(_trimming, "_STRIP", 32)
    monkeypatch.setattr(chunks.slices, "__defaults__", (10_000,))
    base, (expert,) = rounded(40_000, 1, steps)
    if wrong:  # the strips, each a 20th of the distance between them, are those of another tensor
        expert.view(64, 625)[:, :40] = base.view(64, 625)[:, :40] + 1
    walks, show = [], _trimming._show

    def counted(origin, shown, part):
        walks.append(part.start == 0)
        show(origin, shown, part)

    monkeypatch.setattr(_trimming, "_show", counted)
    for density in (0.02, 0.1, 0.5, 0.97):
        walks.clear()
        found = ties(base, [expert], ["a"], KEEP | {"density": density})
        assert np.array_equal(found.numpy(), trimmed(base, expert, density, 0, "t", "a"))
        assert (sum(walks) > 1) == wrong


def test_values_of_every_kind():
    """Denormal and huge numbers, zeros of both signs, all equal, nothing at all."""
    base = torch.zeros(6)
    delta = torch.tensor([1e-44, -3e38, 0.0, -0.0, 2.0**-130, -1e-45])
    for density in (0.17, 0.34, 0.5, 0.67, 1.0):
        found = ties(base, [delta], ["a"], KEEP | {"density": density})
        assert np.array_equal(found.numpy(), trimmed(base, delta, density, 0, "t", "a"))
    equal = ties(torch.zeros(10_000), [torch.ones(10_000)], ["a"])
    assert equal.sum() == 3000
    assert not ties(base, [base], ["a"]).any()


def test_the_choice_depends_on_seed_tensor_and_expert_alone():
    base, experts = rounded(20_000, 3, 1)
    first = ties(base, experts, ["a", "b", "c"])
    # The order of the experts changes no bit.
    assert torch.equal(ties(base, experts[::-1], ["c", "b", "a"]), first)
    # Of equal experts the same entries stay: with themselves, they are themselves.
    alone = ties(base, experts[:1], ["a"])
    assert torch.equal(ties(base, experts[:1] * 2, ["a", "a"]), 2 * alone)
    # What stays of an expert does not depend on the others: their sum where all signs agree.
    ups = [torch.maximum(expert, base) for expert in experts]
    parts = [ties(base, [up], [digest]) for up, digest in zip(ups, "abc", strict=True)]
    assert torch.equal(ties(base, ups, ["a", "b", "c"]), sum(parts))
    # Anything else moves it.
    others = [
        ties(base, experts[:1], ["b"]),
        ties(base, experts[:1], ["a"], tensor="u"),
        ties(base, experts[:1], ["a"], KEEP | {"seed": 1}),
    ]
    assert all((other != alone).any() for other in others)


def test_no_part_of_a_tensor_is_preferred():
    """Of equal entries each has the same chance, and two experts choose independently."""
    size = 1 << 20
    kept = [
        ties(torch.zeros(size), [torch.ones(size)], [digest]).view(1024, 1024) for digest in "abcd"
    ]
    deviation = (0.3 * 0.7 * 1024) ** 0.5
    for one in kept:
        for sums in (one.sum(0), one.sum(1)):
            assert (sums - 0.3 * 1024).abs().max() < 5 * deviation
            assert sums.std() == pytest.approx(deviation, rel=0.15)
    for i, one in enumerate(kept):
        for other in kept[:i]:
            assert (one * other).mean() == pytest.approx(0.09, abs=5 * 0.09**0.5 / 1024)


def test_hashes_are_a_permutation():
    salt = _trimming.Salt.of(0, "t", "a")
    positions = torch.arange(1 << 17)
    found = salt.hashes(positions)
    assert np.array_equal(found.numpy(), references.hashes(1 << 17, 0, "t", "a"))
    assert len(found.unique()) == len(found)

    # As on a GPU, in words of 64 bits.
    assert torch.equal(salt.mix(positions), found)


@pytest.mark.parametrize("steps", [1, 30])
def test_the_same_bits_on_one_and_two_threads(steps, monkeypatch):
    monkeypatch.setattr(_trimming, "_FEW", 5000)
    monkeypatch.setattr(chunks.slices, "__defaults__", (3000,))
    base, experts = rounded(100_000, 4, steps)
    found = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(ties(base, experts, list("abcd")))
    assert torch.equal(*found)


@pytest.mark.parametrize("few", [100, 1 << 22], ids="collected below {}".format)
def test_trimming_over_the_whole_model(few, monkeypatch):
    """The share is that of all entries together: small tensors lose more, or less, than theirs."""
    monkeypatch.setattr(_trimming, "_FEW", few)
    scales = {"a": 0.5, "b": 1, "c": 20}
    tensors = {n: rounded(3000, 2, scale, seed=i) for i, (n, scale) in enumerate(scales.items())}
    digests, parameters = ["x", "y"], KEEP | {"density": 0.5, "trim": "model", "seed": 3}

    def walk():
        for name, (base, experts) in tensors.items():
            yield name, base, experts

    given = {"combine": "sum", "lambda_": 1.0, "density": 0.5, "trim": "model", "seed": 3}
    bounds = TIES.bounds(walk, digests, **given)
    found = {
        name: TIES(*own, parameters, projection=True, identity=Identity(name, digests, bounds))
        for name, own in tensors.items()
    }
    # In float64, by a sort of all entries by magnitude and hash.
    parts = {name: [] for name in tensors}
    for expert, digest in enumerate(digests):
        deltas = {n: own[1][expert].double() - own[0].double() for n, own in tensors.items()}
        magnitudes = np.concatenate([delta.abs().numpy() for delta in deltas.values()])
        drawn = np.concatenate([references.hashes(3000, 3, name, digest) for name in deltas])
        stays = np.zeros(len(drawn), dtype=bool)
        stays[np.lexsort((drawn, magnitudes))[::-1][: len(drawn) // 2]] = True
        for name, mask in zip(deltas, np.split(stays, len(deltas)), strict=True):
            parts[name].append(np.where(mask, deltas[name].numpy(), 0))
    kept = {name: sum(np.count_nonzero(one) for one in own) for name, own in parts.items()}
    assert kept["a"] < kept["b"] < kept["c"]
    for name, own in parts.items():
        expected = references.elected(own, "sum", 1.0)
        assert np.abs(found[name].double().numpy() - expected).max() <= 1e-6 * expected.max()
    # By tensors, there is nothing to know before.
    assert TIES.bounds(walk, digests, **given | {"trim": "tensor"}) == []
