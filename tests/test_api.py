"""The door from Python: the same bits as from the command line, in any thread, with images of one's own."""

import re
import signal
import threading

import numpy as np
import pytest
import torch
from PIL import Image

import bytepixels
from bytepixels import Run, list_runs, stream, train
from bytepixels.data import pack
from bytepixels.data.sources.in_memory import source_of
from bytepixels.errors import InputError
from bytepixels.events import Note, Progress, listening
from bytepixels.stopping import Stop
from tests.tiny import TINY, checkpoints, cli, pixels_of, same_bits

TINY_SETTINGS = {
    "preset": "digits",
    "width": 8,
    "multipliers": (1,),
    "attention": (0,),
    "heads": 1,
    "blocks": 1,
    "dropout": 0.0,
    "schedule": "cosine",
    "prediction": "v",
    "lr": 0.002,
    "warmup": 5000,
    "lr_decay": "cosine",
    "ema_half_life": 10_000,
    "batch": 32,
    "precision": "float32",
    "device": "cpu",
    "log_seconds": 0,
    "previews": 0,
    "sampler": "ddim",
    "steps": 3,
}


def trained(path, steps=2, source="digits", **more):
    return train(source, path, images=32 * steps, **TINY_SETTINGS | more)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs") / "run", steps=4)


def test_training_and_sampling_give_the_bits_of_the_command_line(run, tmp_path):
    other = tmp_path / "cli"
    assert cli("train", "digits", *TINY, "--images", 32 * 4, "--run", other) == 0
    assert same_bits(checkpoints(run.path)[-1], checkpoints(other)[-1]) == []
    assert run.config == Run.open(other).config
    assert cli("sample", other, "-n", 4, "--seed", 7, "--label", 3, "--out", tmp_path / "out") == 0
    images = run.sample(4, seed=7, label="3")
    assert images.shape == (4, 1, 8, 8)
    assert all(np.array_equal(images[k, 0], pixels_of(tmp_path / f"out/seed-{7 + k}.png")) for k in range(4))
    assert torch.equal(run.sample(4, seed=7, label="3", out=tmp_path / "again"), images)
    assert (tmp_path / "again/manifest.json").is_file()


def test_the_doctor_returns_values_and_says_them(capsys):
    images = np.zeros((3, 12, 12, 3), np.uint8)
    images[2] = np.random.default_rng(0).integers(0, 256, (12, 12, 3))
    found = bytepixels.doctor(images, quick=True, size=[12, 12])
    assert (found.data.images, found.data.packed_size, found.plan.config.preset) == (3, (12, 12), "digits")
    assert [(one.kind, one.count) for one in found.findings] == [
        ("exact_copies", 1),
        ("dark", 2),
        ("one_colour", 2),
        ("few_images", 3),
    ]
    assert "Worth doing first" in capsys.readouterr().out
    with pytest.raises(InputError, match="did you mean 'quick'"):
        bytepixels.doctor(images, quik=True)


def test_it_stops_from_another_thread_and_goes_on_as_if_it_never_had(run, tmp_path):
    stop, seen = Stop(), []

    def listen(event):
        if isinstance(event, Progress) and event.what == "train":
            seen.append(event.done)
            stop.ask()

    def work():
        with listening(listen):
            trained(tmp_path / "run", steps=4, stop=stop)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not Run.open(tmp_path / "run").finished
    assert seen[-1] < 32 * 4
    assert trained(tmp_path / "run", steps=4).finished
    assert same_bits(checkpoints(tmp_path / "run")[-1], checkpoints(run.path)[-1]) == []


def test_two_threads_train_and_sample_beside_each_other(run, tmp_path):
    expected, drawn = run.sample(3, seed=1), []
    threads = [
        threading.Thread(target=lambda: trained(tmp_path / "run", steps=4)),
        threading.Thread(target=lambda: drawn.append(run.sample(3, seed=1))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(drawn[0], expected)
    assert same_bits(checkpoints(tmp_path / "run")[-1], checkpoints(run.path)[-1]) == []


def test_a_stream_gives_events_and_then_the_run(tmp_path):
    *events, run = stream(train, "digits", tmp_path / "run", images=64, **TINY_SETTINGS)
    assert isinstance(run, Run)
    assert run.finished
    assert any(isinstance(one, Note) and "1,797 images of 8 x 8" in one.text for one in events)
    assert [one.done for one in events if isinstance(one, Progress) and one.what == "train"][-1] == 64


def test_a_stream_that_is_closed_stops_the_training_and_it_is_saved(tmp_path):
    events = stream(train, "digits", tmp_path / "run", images=32 * 500, **TINY_SETTINGS)
    next(one for one in events if isinstance(one, Progress) and one.what == "train")
    events.close()
    assert len(checkpoints(tmp_path / "run")) == 1
    assert not Run.open(tmp_path / "run").finished


def test_ctrl_c_saves_and_is_not_taken_for_the_end(tmp_path):
    once = [signal.SIGINT]  # a second one would end it at once

    def listen(event):
        if isinstance(event, Progress) and event.what == "train" and event.done and once:
            signal.raise_signal(once.pop())

    with listening(listen), pytest.raises(KeyboardInterrupt):
        train("digits", tmp_path / "run", images=32 * 500, **TINY_SETTINGS)
    assert len(checkpoints(tmp_path / "run")) == 1
    assert re.fullmatch(rf"\[<{tmp_path / 'run'}: stopped, \d+ images seen>\]", repr(list_runs(tmp_path)))


def test_an_error_in_a_stream_comes_out_of_it(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        list(stream(train, tmp_path / "nowhere", tmp_path / "run"))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"lrr": 1}, "did you mean 'lr'"),
        ({"lr": -1}, "--lr must be"),
        ({"images": 64, "epochs": 1.0}, "--images and --epochs say the same thing"),
        ({"images": "many"}, "--images must be a whole number"),
        ({"preset": "smal"}, "did you mean 'small'"),
        ({"backbone": "dit", "blocks": 2}, "blocks"),
    ],
)
def test_what_a_training_cannot_be_is_said_as_on_the_command_line(settings, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        train("digits", tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_drawn(run):
    with pytest.raises(InputError, match="did you mean 'steps'"):
        run.sample(2, stepps=3)
    with pytest.raises(InputError, match="-n must be"):
        run.sample(0)
    with pytest.raises(InputError, match="no_such_run is not a run"):
        Run.open("no_such_run")


def test_edits_and_measures_return_what_they_find(run, tmp_path):
    photo = tmp_path / "photo.png"
    Image.new("L", (8, 8), 100).save(photo)
    mask = tmp_path / "mask.png"
    Image.fromarray(np.repeat(np.array([[0], [255]], np.uint8), 4, 0).repeat(8, 1)).save(mask)
    assert run.vary(photo, n=2, out=tmp_path / "a").shape == (2, 1, 8, 8)
    grey = np.full((8, 8), 100, np.uint8)
    for held in (grey, torch.from_numpy(grey)[None], Image.fromarray(grey)):
        assert torch.equal(run.vary(held, n=1, out=tmp_path / "held"), run.vary(photo, n=1, out=tmp_path / "file"))
    assert run.inpaint(photo, mask, n=2, repeats=1, out=tmp_path / "b").shape == (2, 1, 8, 8)
    assert run.interpolate(1, 2, n=3, out=tmp_path / "c").shape == (3, 1, 8, 8)
    assert run.invert(photo, out=tmp_path / "d").shape[1:] == (1, 8, 8)
    record = run.evaluate(n=16, features="random")
    assert record["n"] == 16
    assert record["frechet_distance"] > 0
    bits, loss = run.likelihood(bits=True, loss=True, n=4, steps=4, ode_steps=1, probes=1)
    assert bits["bits_per_dimension"]
    assert loss["kind"] == "loss"
    compared = run.compare(n=16, samplers=["ddim"], steps=[1, 2], features="random")
    assert [row["steps"] for row in compared["rows"]] == [1, 2]
    assert [one["kind"] for one in run.overview.evaluations] == ["quality", "bits", "loss", "compare"]
    assert run.report(strip=0, out=tmp_path / "report.html").read_text().startswith("<!")


def test_an_autoencoder_and_a_model_on_its_latents(tmp_path):
    small = {
        name: TINY_SETTINGS[name] for name in ("width", "blocks", "precision", "device", "previews", "log_seconds")
    }
    stage = bytepixels.train_autoencoder(
        PIXELS, tmp_path / "stage", images=64, batch=32, size=(8, 8), factor=2, latent_channels=2, **small
    )
    assert stage.config.autoencoder.factor == 2
    assert stage.finished
    model = trained(tmp_path / "model", source=PIXELS, autoencoder=str(stage.path), attention=(), log_seconds=0)
    assert model.sample(2).shape == (2, 3, 8, 8)
    with pytest.raises(InputError, match="is no autoencoder"):
        bytepixels.train_autoencoder(PIXELS, model.path)
    with pytest.raises(InputError, match="did you mean 'factor'"):
        bytepixels.train_autoencoder(PIXELS, tmp_path / "other", faktor=2)


def test_what_was_trained_is_listed_and_pruned(run, tmp_path):
    trained(tmp_path / "one", steps=2)
    (one,) = bytepixels.list_runs(tmp_path)
    assert (one.path.name, one.state, one.images, len(one.saved)) == ("one", "finished", 64, 1)
    bytepixels.prune_runs([str(tmp_path / "one")], keep=1, optimizer=True, dry_run=True)
    assert not Run.open(tmp_path / "one").overview.saved[0].pruned
    (plan,) = bytepixels.prune_runs([str(tmp_path / "one")], keep=1, optimizer=True)
    assert plan.freed > 0
    assert Run.open(tmp_path / "one").overview.saved[0].pruned


def test_nothing_is_printed_where_somebody_listens(tmp_path, capsys):
    heard = []
    with listening(heard.append):
        trained(tmp_path / "run").sample(2)
    assert capsys.readouterr() == ("", "")
    assert len(heard) > 5


# ---------------------------------------------------------------------------- images that a program holds

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 10, 3), dtype=np.uint8)
LABELS = [0, 1, 2, 0, 1, 2]


class DataSet(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, k):
        if k >= 6:
            raise IndexError
        return torch.from_numpy(PIXELS[k]).permute(2, 0, 1).float() / 255, LABELS[k]


HELD = {
    "array": PIXELS,
    "floats": PIXELS / 255,
    "channels first": PIXELS.transpose(0, 3, 1, 2),
    "tensor": torch.from_numpy(PIXELS).permute(0, 3, 1, 2),
    "PIL images": [Image.fromarray(one) for one in PIXELS],
    "pairs": list(zip(PIXELS, LABELS, strict=True)),
    "mappings": [{"image": Image.fromarray(one), "label": k} for one, k in zip(PIXELS, LABELS, strict=True)],
    "a data set": DataSet(),
}


@pytest.mark.parametrize("images", HELD.values(), ids=HELD)
def test_images_that_a_program_holds_are_a_source(images):
    packed = pack(source_of(images))
    assert np.array_equal(packed.images.transpose(0, 2, 3, 1), PIXELS)
    if packed.labels is not None:
        assert packed.labels.tolist() == LABELS
    assert source_of(images) == source_of(images)


def test_images_of_several_sizes_and_of_grey():
    mixed = [Image.fromarray(PIXELS[0]), Image.fromarray(PIXELS[1, :4])]
    assert pack(source_of(mixed), size=(4, 4)).images.shape == (2, 3, 4, 4)
    assert pack(source_of(PIXELS[..., 0])).images.shape == (6, 1, 8, 10)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ([], "no images"),
        (np.zeros((2, 2)), "3 or 4 dimensions"),
        (np.full((2, 8, 8), 7.0), "floats lie in 0..1"),
        (np.zeros((2, 8, 8), np.int64), "uint8"),
        ([{"photo": 1}], "has an 'image'"),
        ([(PIXELS[0], 1), PIXELS[1]], "1 of the 2 images given have a label"),
        (7, "a path, an array or a sequence"),
    ],
)
def test_what_is_no_source(images, sentence):
    with pytest.raises(InputError, match=sentence):
        source_of(images)


def test_the_mathematics_alone_loads_no_command_line():
    assert {"Run", "train", "stream", "model_names"} <= set(dir(bytepixels))
