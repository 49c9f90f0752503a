"""--spacing own: measured once on the model's own path, kept under its weights, and used for any number of steps."""

import json
from dataclasses import replace

import pytest
import torch

from bytepixels.config.sampling import SampleConfig
from bytepixels.data import default_cache
from bytepixels.errors import InputError
from bytepixels.events import listening
from bytepixels.files import read_sealed, write_sealed
from bytepixels.sampling import own_grid
from bytepixels.sampling.trained_model import TrainedModel
from tests.tiny import cli, pixels_of, read_json, train, words

OWN = SampleConfig(steps=5, spacing="own")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """20 timesteps, so that the fine levels are all there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYTEPIXELS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        path = tmp_path_factory.mktemp("own") / "run"
        assert train(path, *words("--timesteps 20 --warmup 0 --lr-decay none --attention 0"), steps=20) == 0
    return path


@pytest.fixture
def model(trained, monkeypatch):
    """The run with nothing measured yet, and few seeds."""
    monkeypatch.setattr(own_grid, "VALUES", 64 * 10)
    for place in (trained, default_cache()):
        for path in (place / "grids").glob("*.json"):
            path.unlink()
    return TrainedModel.open(trained, device="cpu")


def kept(model):
    return sorted((model.run.path / "grids").glob("*.json"))


def heard(call):
    """What a call returns, and the sentences that it says."""
    said = []
    with listening(lambda event: said.append(getattr(event, "text", ""))):
        found = call()
    return found, " ".join(said)


@pytest.fixture
def no_measuring(monkeypatch):
    """From here on, what was not kept fails."""

    def forbid():
        monkeypatch.setattr(own_grid, "step_costs", lambda *_: pytest.fail("measured again"))

    return forbid


def test_measured_once_and_said_then_read_for_any_number_of_steps(model, no_measuring):
    first, said = heard(lambda: model.levels(OWN))
    assert "measuring once" in said
    assert "10 seeds" in said
    (path,) = kept(model)
    assert str(path) in said
    no_measuring()
    again, said = heard(lambda: model.levels(OWN))
    assert again == first
    assert said == ""
    full = model.process.levels()
    for steps in range(1, 21):
        levels = model.levels(replace(OWN, steps=steps))
        assert len(levels) == steps + 1
        assert levels[0] == full[0]
        assert levels[-1] == full[-1]
        assert all(level in full for level in levels)
    assert model.levels(replace(OWN, steps=20)) == full


@pytest.mark.parametrize("part", [1, 4, 100])
def test_it_is_what_the_core_makes_of_the_path(model, monkeypatch, part):
    """Ten seeds, one by one, in parts or at once."""
    monkeypatch.setattr(own_grid, "PART", 64 * part)
    settings = replace(OWN, sampler="dpmpp_2m", steps=20, spacing="log_snr")
    levels = model.process.levels(20, "log_snr")
    seeds = range(own_grid.FIRST_SEED, own_grid.FIRST_SEED + 10)
    costs = own_grid.step_costs(*model.path(settings, seeds, levels), levels, 1.0)
    model.levels(OWN)
    found = own_grid.StepCosts.read(read_sealed(kept(model)[0]))
    assert found.times == [level.t for level in levels[:-1]]
    assert torch.allclose(found.costs, costs, rtol=1e-3)


def test_the_coefficient_is_the_one_that_leads_nearest(model, monkeypatch):
    """To the ends of the fine paths, by drawing the same seeds; the others are not better."""
    model.levels(OWN)
    found = own_grid.StepCosts.read(read_sealed(kept(model)[0]))
    settings = replace(OWN, sampler="dpmpp_2m", steps=20, spacing="log_snr")
    seeds = range(own_grid.FIRST_SEED, own_grid.FIRST_SEED + 10)
    ends = model.path(settings, seeds, model.process.levels(20, "log_snr"))[0][-1]

    def missed(coefficient):
        levels = replace(found, coefficient=coefficient).levels(model.process, 6)
        last = model.path(replace(settings, sampler="exp_2m", steps=6), seeds, levels)[0][-1]
        return float((last - ends).square().mean(dim=(1, 2, 3)).sqrt().mean())

    assert found.coefficient in own_grid.COEFFICIENTS
    assert missed(found.coefficient) <= min(map(missed, own_grid.COEFFICIENTS)) * (1 + 1e-3)
    monkeypatch.setattr(own_grid, "COEFFICIENTS", (1.0, 1e6))  # of which the second puts all levels at the clean end
    model.levels(replace(OWN, clip=False))
    chosen = {read_sealed(path)["coefficient"] for path in kept(model) if not read_sealed(path)["key"]["clip"]}
    assert chosen == {1.0}


@pytest.mark.parametrize("timesteps", [1, 4, 6])
def test_a_process_of_few_levels_needs_no_trial(tmp_path, timesteps):
    path = tmp_path / "run"
    flags = words("--warmup 0 --attention 0 --steps 1")
    assert train(path, "--timesteps", timesteps, *flags, steps=1) == 0
    short = TrainedModel.open(path, device="cpu")
    for steps in range(1, timesteps + 1):
        levels = short.levels(replace(OWN, steps=steps))
        assert len(levels) == steps + 1
        assert levels[0] == short.process.levels()[0]


def test_more_steps_than_fine_levels_lie_as_those_do(model):
    costs = own_grid.StepCosts([19.0, 10.0, 0.0], torch.ones(4, 4, dtype=torch.float64))
    assert costs.levels(model.process, 7) == model.process.levels(7, "log_snr")


def test_other_weights_have_grids_of_their_own(model):
    first = model.levels(OWN)
    model.levels(replace(OWN, steps=9, sampler="ipndm"))
    assert model.levels(replace(OWN, guidance=2.0)) == first  # whose path bends at the same levels
    assert len(kept(model)) == 1  # none of these changes it
    model.levels(replace(OWN, clip=False))
    assert len(kept(model)) == 2
    raw = TrainedModel.open(model.run, weights="model", device="cpu")
    raw.levels(OWN)
    assert len(kept(model)) == 3


def test_what_another_model_measured_is_not_taken(model):
    """Not even from a file of this one's name."""
    model.levels(OWN)
    (path,) = kept(model)
    record = read_sealed(path)
    other = record | {"key": record["key"] | {"weights": "0" * 64}, "costs": [[9.0] * n for n in range(20, -1, -1)]}
    write_sealed(path, other)
    model.levels(OWN)
    assert read_sealed(path)["costs"] == record["costs"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"seal": 1}'])
def test_a_damaged_file_is_said_and_measured_again(model, damage):
    first = model.levels(OWN)
    (path,) = kept(model)
    whole = read_sealed(path)
    path.write_text(damage)
    again, said = heard(lambda: model.levels(OWN))
    assert again == first
    assert f"{path} cannot be read" in said
    assert read_sealed(path)["costs"] == whole["costs"]


def test_a_sealed_file_of_another_form_is_measured_again(model):
    first = model.levels(OWN)
    (path,) = kept(model)
    whole = read_sealed(path)
    for wrong in ({"costs": whole["costs"][1:]}, {"costs": 3}, {"times": ["x"] * 20}):
        write_sealed(path, whole | wrong)
        again, said = heard(lambda: model.levels(OWN))
        assert again == first
        assert "cannot be read" in said


def test_a_run_that_cannot_be_written_keeps_its_grid_in_the_cache(model, no_measuring):
    folder = model.run.path / "grids"
    folder.rmdir() if folder.is_dir() else None
    folder.write_text("in the way")
    try:
        first, said = heard(lambda: model.levels(OWN))
        (path,) = (default_cache() / "grids").glob("*.json")
        assert str(path) in said
        no_measuring()
        assert model.levels(OWN) == first
    finally:
        folder.unlink()


def test_a_compiled_network_has_the_hash_of_its_own_weights(model):
    wrapped = torch.nn.Module()
    wrapped._orig_mod = model.network
    assert own_grid.hash_of(wrapped) == own_grid.hash_of(model.network)
    raw = TrainedModel.open(model.run, weights="model", device="cpu")
    assert own_grid.hash_of(raw.network) != own_grid.hash_of(model.network)


def test_while_it_trains_the_grid_is_the_usual_one(model):
    training = replace(model, checkpoint=None)
    assert training.levels(OWN) == model.process.levels(5)
    assert kept(model) == []


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "unipc_3", "auto"])
def test_sample_takes_it(model, tmp_path, sampler):
    """Image k is that of seed k, alone or in company; the manifest and the folder's name say how it was made."""
    flags = words(f"--spacing own --steps 4 --sampler {sampler} --device cpu")
    assert cli("sample", model.run.path, "-n", 3, "--out", tmp_path / "three", *flags) == 0
    assert cli("sample", model.run.path, "-n", 1, "--seed", 2, *flags) == 0
    (folder,) = (model.run.path / "samples").glob("*-4-own-*seed-2")
    assert read_json(folder / "manifest.json")["settings"]["spacing"] == "own"
    apart = pixels_of(folder / "seed-2.png").astype(int) - pixels_of(tmp_path / "three" / "seed-2.png")
    assert abs(apart).max() <= 1
    for path in (model.run.path / "samples").glob("*-own-*"):
        for file in path.iterdir():
            file.unlink()
        path.rmdir()


def test_a_process_by_itself_knows_no_such_grid(model):
    with pytest.raises(InputError, match="spacing must be one of"):
        model.process.levels(5, "own")
    assert json.loads(json.dumps(OWN.spacing)) == "own"
