"""A coordinate-wise cell without embeddings: trained at one size, it serves maps of others, and no other maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fixedpoint as fp
from fixedpoint.checks import check_accelerator
from maps.elastic_net import RandomElasticNet
from maps.scs.families.lasso import Lasso
from tests.accelerators.learners import examples, scrambled
from tests.checks.learned import SIGNATURE, random_weights

SMALL, LARGE = (RandomElasticNet(size, step=1.0) for size in (5, 9))


def made(family: fp.ProblemFamily = SMALL, **options: Any) -> Any:
    method = fp.accelerators.create("coordinate-gru", **{"hidden": 4, "steps": 5, "embedding_size": 0, **options})
    return method.bind(family.map.signature)


def draw(family: fp.ProblemFamily, batch: int = 3) -> Any:
    return family.sample(batch, generator=torch.Generator().manual_seed(0))


def test_nothing_has_the_size_of_the_map() -> None:
    shapes = [{name: t.shape for name, t in made(family).state_dict().items()} for family in (SMALL, LARGE)]
    assert shapes[0] == shapes[1]
    fitted = made()
    fitted.fit(examples())
    assert {name: t.shape for name, t in fitted.state_dict().items()} == shapes[0]
    with_embedding = {name: t.shape for name, t in made(embedding_size=2).state_dict().items()}
    assert with_embedding["embedding"] == (5, 2)


@pytest.mark.parametrize("base", ["picard", "anderson-2"])
def test_loaded_it_serves_another_size(base: str, tmp_path: Path) -> None:
    saved = fp.save(scrambled(made(base=base), size=0.3), tmp_path / "any.safetensors")
    loaded = fp.load(saved)
    for family in (SMALL, LARGE):
        path = fp.unroll(family.map, draw(family), loaded, steps=9)
        plain = fp.unroll(family.map, draw(family), base, steps=9)
        assert path.x.shape[2] == family.map.signature.size
        assert (path.x[1] - plain.x[1]).abs().max() > 1e-3, "the learned steps are at work"
        assert torch.isfinite(path.x).all()
    inside = fp.accelerators.create("safeguarded", inner=loaded)
    assert fp.solve(LARGE.map, draw(LARGE), inside, tolerance=1e-2, max_evaluations=3000).converged.all()


def test_untrained_it_is_its_base_at_every_size() -> None:
    method = made(base="anderson-2")
    for family in (SMALL, LARGE):
        ours = fp.unroll(family.map, draw(family), method, steps=9).x
        assert torch.equal(ours, fp.unroll(family.map, draw(family), "anderson-2", steps=9).x)


def test_with_embeddings_or_a_base_of_one_size_it_refuses_another() -> None:
    for method in (made(embedding_size=1), made(base=fp.accelerators.create("gru", hidden=3))):
        assert not method.size_free
        with pytest.raises(ValueError, match="size: 9, not 5"):
            method.bind(LARGE.map.signature)


def test_another_scaling_is_refused_at_any_size() -> None:
    method = made()
    for size in (5, 9):
        with pytest.raises(ValueError, match=r"step: 0\.5, not 1\.0"):
            method.bind(RandomElasticNet(size, step=0.5).map.signature)


def test_a_lasso_of_another_size_is_served_one_of_another_form_or_scale_is_not() -> None:
    options = {"variables": 6, "samples": 12, "nonzeros": 2}
    here, there = Lasso(scale=3.0, **options), Lasso(scale=3.0, variables=4, samples=10, nonzeros=2)
    method = scrambled(made(here), size=0.2)
    assert method.bind(there.map.signature) is method
    assert torch.isfinite(fp.unroll(there.map, draw(there), method, steps=8).x).all()
    with pytest.raises(ValueError, match=r"scale: 2\.0, not 3\.0"):
        method.bind(Lasso(scale=2.0, variables=4, samples=10, nonzeros=2).map.signature)
    with pytest.raises(ValueError, match=r"cones: \['l', 'q'.*\], not \['l', 'z'\]"):
        method.bind(Lasso("conic", scale=3.0, **options).map.signature)
    with pytest.raises(ValueError, match=r"embedded.*|size: "):
        made(here, embedding_size=2).bind(there.map.signature)


def test_a_map_that_does_not_declare_its_sizes_is_not_served_at_another() -> None:
    known = {"map": "ours", "n": 5}
    method = made().__class__(fp.Signature(5, coordinates=known), embedding_size=0)
    with pytest.raises(ValueError, match="n: 7, not 5"):
        method.bind(fp.Signature(7, coordinates={**known, "n": 7}))
    assert method.bind(fp.Signature(7, coordinates={**known, "n": 7}, sizes=frozenset({"n"}))) is method
    with pytest.raises(ValueError, match="sizes: unknown"):
        fp.Signature(7, coordinates=known, sizes=frozenset({"m"}))


def test_sizes_are_kept_by_json_and_do_not_change_the_hash() -> None:
    one = fp.Signature(7, coordinates={"n": 7}, sizes=frozenset({"n"}))
    assert fp.Signature.from_json(one.to_json()) == one
    assert one.hash == fp.Signature(7, coordinates={"n": 7}).hash
    old = {name: value for name, value in one.to_json().items() if name != "sizes"}
    assert fp.Signature.from_json(old).sizes == frozenset(), "checkpoints from before there were sizes"


def test_coordinates_are_told_apart_by_the_metric_and_measured_in_its_units() -> None:
    """x' = x / c in the metric c^2 W is the same iteration; without a metric equal entries get equal answers."""
    method = scrambled(made(), size=0.5)
    generator = torch.Generator().manual_seed(2)
    x0, x, r = (torch.randn(3, 7, generator=generator, dtype=torch.float64) for _ in range(3))
    c = torch.exp(torch.randn(3, 7, generator=generator, dtype=torch.float64))
    metric = c**2
    found = []
    for scale in (1.0, 1e3):
        start, state = method.init(x0 / scale, None, metric * scale**2)
        following, _ = method.step(fp.Evaluation(x / scale, (x + r) / scale, r / scale), state)
        found.append((start * scale, following * scale))
    for one, two in zip(*found, strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-5)
    same = torch.full((2, 6), 1.5, dtype=torch.float64)
    start, state = method.init(same, None, None)
    assert (start - start[:, :1]).abs().max() < 1e-6
    start, _ = method.init(same, None, torch.tensor([[1.0, 1, 1, 4, 4, 4]], dtype=torch.float64))
    assert (start[:, 0] - start[:, 3]).abs().min() > 1e-4


def test_coordinates_in_other_units_get_the_same_answers_in_those_units() -> None:
    """Where the network is deaf to the marks, x' = x / c with the metric c^2 is the same iteration."""
    method = scrambled(made(), size=0.5)
    with torch.no_grad():
        method.start_network[0].weight[:, 1:] = 0
        method.encoder[0].weight[:, 4:] = 0
    generator = torch.Generator().manual_seed(2)
    x0, x, r = (torch.randn(3, 7, generator=generator, dtype=torch.float64) for _ in range(3))
    c = torch.exp(torch.randn(3, 7, generator=generator, dtype=torch.float64))
    found = []
    for unit in (torch.ones_like(c), c):
        start, state = method.init(x0 / unit, None, unit**2)
        following, _ = method.step(fp.Evaluation(x / unit, (x + r) / unit, r / unit), state)
        found.append((start * unit, following * unit))
    for one, two, plain in zip(*found, (x0, x + r), strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-4)
        assert (one - plain).abs().max() > 1e-2


def test_the_safeguard_s_gate_knows_that_larger_maps_have_larger_residuals() -> None:
    """Residual norms grow with the root of the size; the same vector repeated is as usual as it was."""
    inner = scrambled(made(start=False), size=1e-3)
    guarded = fp.accelerators.create("safeguarded", inner=inner)
    assert isinstance(guarded, nn.Module)
    r = torch.ones(1, 5, dtype=torch.float64)
    guarded.calibrate(float(r.norm()) * torch.tensor([[1.0], [0.1], [0.01], [0.001], [0.0001], [0.0]]).expand(6, 4))
    for repeats, factors, kept in (
        (1, [1.0, 0.1], True),
        (1, [2.0], False),
        (1, [1.0, 1.0], False),  # not the pace of the training
        (9, [1.0, 1.0], True),  # which is not known at another size
        (9, [2.0], False),
        (9, [1.0, 2.0], False),
    ):
        x = torch.zeros(1, 5 * repeats, dtype=torch.float64)
        _, state = guarded.init(x, None)
        for factor in factors:
            many = factor * r.repeat(1, repeats)
            _, state = guarded.step(fp.Evaluation(x, x + many, many), state)
        assert bool(state.seen[0] == len(factors)) == kept, (repeats, factors)


def test_it_keeps_the_laws_at_either_size() -> None:
    method = random_weights(fp.accelerators.create("coordinate-gru", embedding_size=0).bind(SIGNATURE))
    check_accelerator(method)
    check_accelerator(method, signature=fp.Signature(9, coordinates=SIGNATURE.coordinates))


@pytest.mark.parametrize("wrong", [-1, 2.0, True])
def test_a_wrong_embedding_size_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="embedding_size"):
        fp.accelerators.create("coordinate-gru", embedding_size=wrong)
