"""Checkpoints: what is loaded steps bit for bit as what was saved; what cannot be trusted is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

import fixedpoint as fp
from fixedpoint.learning.learned import Learned
from fixedpoint.plugins import checkpoint
from maps.elastic_net import RandomElasticNet
from maps.scs import SCS
from tests.checks.checkpoints import hostile, sealed, spec
from tests.checks.learned import SIGNATURE, points, random_weights, same, small

NAME = "weights.safetensors"


# -- there and back


@pytest.mark.parametrize("name", fp.accelerators.names())
def test_steps_survive_the_disk_bit_by_bit(name: str, tmp_path: Path) -> None:
    made = fp.accelerators.create(name)
    bound = made.bind(SIGNATURE)
    if isinstance(made, Learned):
        untrained = points(made)
        random_weights(bound)
        assert not torch.equal(points(bound), untrained), "else nothing is tested"
    schedule = fp.accelerators.create("schedule", parts=[bound, "anderson-2"], steps=[5])
    guarded = fp.accelerators.create("safeguarded", inner=schedule)
    if isinstance(made, Learned):
        random_weights(guarded, seed=1)
    for number, one in enumerate([bound, guarded]):
        loaded = fp.load(fp.save(one, tmp_path / "new" / f"{number}.safetensors"))
        assert type(loaded) is type(one)
        assert same(loaded, one)
        assert loaded.signature == one.signature
        assert one.signature == (SIGNATURE if isinstance(made, Learned) else None)
    assert [path.name for path in sorted((tmp_path / "new").iterdir())] == ["0.safetensors", "1.safetensors"]


def test_what_is_loaded_can_be_used_and_trained_at_once(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    loaded = fp.load(fp.save(small().train(), tmp_path / NAME))
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(module.training for module in loaded.modules())
    assert all(p.requires_grad and p.device.type == "cpu" for p in loaded.parameters())


def test_a_part_used_twice_is_kept_twice(tmp_path: Path) -> None:
    part = small()
    schedule = fp.accelerators.create("schedule", parts=[part, part])
    assert same(fp.load(fp.save(schedule, tmp_path / NAME)), schedule)


def test_provenance_is_kept(tmp_path: Path) -> None:
    told = {"family": {"name": "affine", "options": {"size": 5}}, "minutes": 1.5, "updates": None}
    one = small()
    fp.save(one, tmp_path / "untold")
    assert fp.load(tmp_path / "untold").provenance is None
    assert checkpoint.provenance(tmp_path / "untold") == {}
    one.provenance = told
    fp.save(one, tmp_path / "told")
    assert fp.load(tmp_path / "told").provenance == told
    assert checkpoint.provenance(tmp_path / "told") == told


# -- what is not saved


class Holder(fp.Accelerator):
    """Holds another accelerator without being a module."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.signature = inner.signature if isinstance(inner, fp.Accelerator) else None

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, Any]:
        return self.inner.init(x0, features, metric)

    def step(self, at: fp.Evaluation, state: Any) -> tuple[Tensor, Any]:
        return self.inner.step(at, state)


def forgetful() -> fp.Accelerator:
    accelerator = small()
    del accelerator.hidden
    return accelerator


def unbuilt_within() -> fp.Accelerator:
    return fp.accelerators.create("schedule", parts=[small(), "gru"])


def with_weight(value: float) -> fp.Accelerator:
    accelerator = small()
    with torch.no_grad():
        next(accelerator.parameters()).view(-1)[1] = value
    return accelerator


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: fp.accelerators.create("gru"), ValueError, "GRU was made without a signature"),
        (lambda: fp.accelerators.create("safeguarded", inner="gru"), ValueError, "GRU was made without a signature"),
        (unbuilt_within, ValueError, "GRU was made without a signature"),
        (lambda: with_weight(torch.nan), ValueError, r"^accelerator: embedding is not finite"),
        (lambda: with_weight(-torch.inf), ValueError, r"^accelerator: embedding is not finite"),
        (lambda: Holder([small()]), fp.RegistryError, r"Holder is not a registered accelerator"),
        (lambda: Holder({}), TypeError, r"inner: expected plain data or an accelerator, got \{\}"),
        (forgetful, TypeError, r"CoordinateGRU does not keep its argument\(s\) hidden"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(make: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    fp.save(small(), tmp_path / NAME)
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(error, match=message):
        fp.save(make(), tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_weights_out_of_reach_are_not_silently_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fp.accelerators, "name_of", lambda kind: kind.__name__)
    assert fp.save(Holder(fp.accelerators.create("anderson-2")), tmp_path / NAME).exists()
    with pytest.raises(ValueError, match=r"^accelerator: Holder holds a CoordinateGRU but not its weights"):
        fp.save(Holder([small()]), tmp_path / NAME)


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = small()
    fp.save(one, tmp_path / NAME)
    write = Path.write_bytes

    def half(self: Path, content: bytes) -> int:
        write(self, content[: len(content) // 2])
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        with pytest.raises(OSError, match="disk full"):
            fp.save(small("gru"), tmp_path / NAME)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert same(fp.load(tmp_path / NAME), one)


# -- damage


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole file."""
    return fp.save(small(), tmp_path_factory.mktemp("good") / NAME).read_bytes()


def refused(path: Path, content: bytes | None = None, error: type[Exception] = ValueError) -> str:
    """The message with which `load` and `provenance` refuse a file; it names the file."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error) as caught:
        fp.load(path)
    assert type(caught.value) is error
    assert str(caught.value).startswith(f"checkpoint {path}: ")
    return str(caught.value)


def header_end(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def test_a_truncated_file_is_refused(tmp_path: Path, good: bytes) -> None:
    end = header_end(good)
    for length in {0, 1, 7, 8, 9, end // 2, end - 1, end, end + 1, *range(10, len(good), 97), len(good) - 1}:
        assert "truncated or damaged" in refused(tmp_path / NAME, good[:length])
    assert "truncated or damaged" in refused(tmp_path / NAME, good + b"\0")


def test_a_changed_byte_is_noticed(tmp_path: Path, good: bytes) -> None:
    end = header_end(good)
    for place in (*range(0, 8, 3), *range(8, end, end // 16), *range(end, len(good), (len(good) - end) // 16)):
        for flip in (0x01, 0x80):
            content = bytearray(good)
            content[place] ^= flip
            refused(tmp_path / NAME, bytes(content))


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "missing")
    (tmp_path / "folder").mkdir()
    assert "no such file" in refused(tmp_path / "folder")
    assert "truncated or damaged" in refused(tmp_path / "empty", b"")
    assert "truncated or damaged" in refused(tmp_path / "text", b'{"family": "affine"}\n')
    foreign = to_bytes({"a": torch.zeros(2)}, metadata={"format": "pt"})
    assert "not one of ours" in refused(tmp_path / "foreign", foreign)
    assert "not one of ours" in refused(tmp_path / "bare", to_bytes({"a": torch.zeros(2)}))


# -- files that are whole, but not what they should be


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in hostile()])
def test_a_hostile_description_is_refused(content: Any, tmp_path: Path) -> None:
    refused(tmp_path / NAME, sealed(content))


def test_nothing_is_allocated_on_the_word_of_a_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Tensor] = []

    def noting(register: Any) -> Any:
        def call(self: nn.Module, name: str, tensor: Tensor, **options: Any) -> None:
            made.append(tensor)
            register(self, name, tensor, **options)

        return call

    for name in ("register_parameter", "register_buffer"):
        monkeypatch.setattr(nn.Module, name, noting(getattr(nn.Module, name)))
    refused(tmp_path / NAME, sealed(spec("gru", {"hidden": 10**4})))
    assert sum(t.numel() for t in made) > 10**8
    assert {t.device.type for t in made} == {"meta"}


def test_other_weights_than_the_description_says_are_refused(tmp_path: Path) -> None:
    one = small()
    description = spec("coordinate-gru", {"hidden": 2, "steps": 3})
    weights = {name: t.clone() for name, t in one.state_dict().items()}
    (tmp_path / NAME).write_bytes(sealed(description, weights))
    assert same(fp.load(tmp_path / NAME), one)
    for change in ({"spread": weights["spread"][:4]}, {"spread": weights["spread"].double()}, {"more": torch.ones(1)}):
        assert next(iter(change)) in refused(tmp_path / NAME, sealed(description, {**weights, **change}))
    weights.pop("spread")
    assert "spread" in refused(tmp_path / NAME, sealed(description, weights))


def test_another_format_says_so(tmp_path: Path) -> None:
    for number in (0, checkpoint.FORMAT + 1, None, "1"):
        message = refused(tmp_path / NAME, sealed(spec("picard", format=number)))
        assert f"format {number!r}, this version reads {checkpoint.FORMAT}" in message


def test_an_accelerator_that_is_not_installed_is_named(tmp_path: Path) -> None:
    message = refused(tmp_path / NAME, sealed(spec("andersen-2")), fp.RegistryError)
    assert "no accelerator named 'andersen-2'; did you mean 'anderson-2'?" in message
    within = spec("safeguarded", {"inner": {"accelerator": "unheard-of", "options": {}}})
    assert "unheard-of" in refused(tmp_path / NAME, sealed(within), fp.RegistryError)


# -- which maps it serves


def guarded(signature: fp.Signature, path: Path) -> fp.Accelerator:
    """Two parts under the safeguard, built for a map, from the disk."""
    schedule = fp.accelerators.create("schedule", parts=["coordinate-gru", "anderson-2"])
    return fp.load(fp.save(fp.accelerators.create("safeguarded", inner=schedule).bind(signature), path))


@pytest.mark.parametrize(
    ("trained_for", "asked", "differences"),
    [
        (RandomElasticNet(5).map, RandomElasticNet(6).map, ["size: 6, not 5"]),
        (RandomElasticNet(5).map, RandomElasticNet(5, beta=0.25).map, ["beta: 0.25, not 0.5"]),
        (RandomElasticNet(5).map, fp.families.create("affine", size=5).map, ["map: 'affine', not 'elastic-net'"]),
        (SCS(3, {"l": 2}, scale=0.1), SCS(3, {"l": 2}, scale=75.9), ["(scale: 75.9, not 0.1)"]),
        (SCS(3, {"l": 2}), SCS(3, {"z": 1, "q": [3]}), ["size: 8, not 6", "cones: {"]),
    ],
    ids=["size", "penalty", "map", "scaling", "form"],
)
def test_maps_of_another_kind_are_refused(trained_for: Any, asked: Any, differences: list[str], tmp_path: Path) -> None:
    loaded = guarded(trained_for.signature, tmp_path / NAME)
    assert loaded.bind(trained_for.signature) is loaded
    with pytest.raises(ValueError, match=r"^CoordinateGRU was built for another map \(") as caught:
        loaded.bind(asked.signature)
    for difference in differences:
        assert difference in str(caught.value)


def test_solving_and_unrolling_refuse_them_too(tmp_path: Path, generator: torch.Generator) -> None:
    fitting, other = RandomElasticNet(5), RandomElasticNet(6)
    loaded = guarded(fitting.map.signature, tmp_path / NAME)
    assert bool(fp.solve(fitting.map, fitting.sample(2, generator=generator), loaded).converged.all())
    problem = other.sample(2, generator=generator)
    for use in (fp.solve, fp.unroll):
        with pytest.raises(ValueError, match=r"^CoordinateGRU was built for another map \(size: 6, not 5\)"):
            use(other.map, problem, loaded)
