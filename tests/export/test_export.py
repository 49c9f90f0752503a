"""Files for other programs: onnxruntime and torch.export draw the very images that sample draws, to a grey level."""

import json
from itertools import pairwise

import numpy as np
import onnxruntime
import pytest
import torch

from bytepixels import InputError, Run
from bytepixels.export.networks import Named, inputs_of
from bytepixels.networks import Autoencoder
from bytepixels.randomness import SeededNoise
from bytepixels.sampling.conditioning import labels_of, text_of
from bytepixels.sampling.first_stage import keep_first_stage
from bytepixels.sampling.load_weights import open_model
from bytepixels.sampling.trained_model import TrainedModel, in_precision
from tests.sampling.captioned import colour_images
from tests.tiny import cli, plain, read_json, train

SEEDS = range(3, 5)
KINDS = {  # flags of the training, and of the export
    "ddpm, labels, fresh noise": (["--schedule", "linear"], ["--sampler", "ddpm", "--guidance", 2]),
    "edm, two evaluations a step": (["--diffusion", "edm", "--no-labels"], ["--sampler", "heun"]),
    "flow map, transformer": (
        "--backbone dit --width 32 --diffusion flow --objective flow_map".split(),
        ["--sampler", "ddim", "--steps", 2, "--guidance", 1.5],
    ),
    "text": (["--diffusion", "flow", "--text", "wordllama"], ["--sampler", "unipc_3", "--guidance", 3, "--half"]),
    "latents": (["--diffusion", "flow"], ["--sampler", "exp_2m", "--no-clip"]),
    "learned variance": (["--variance", "learned", "--objective", "hybrid"], ["--sampler", "dpmpp_2m"]),
}


def trained(kind, folder):
    """A run whose every weight is random, so that each input counts."""
    flags, source = list(KINDS[kind][0]), "digits"
    if kind == "latents":
        torch.manual_seed(0)
        (folder / "stage").mkdir()
        keep_first_stage(Autoencoder(1, 8, (1, 2), 1, 3), folder / "stage")
        flags += ["--autoencoder", folder / "stage"]
    if kind == "text":
        source = colour_images(folder / "in")
    if "dit" in flags:  # which refuses flags that are TINY's
        own = "--preset digits --batch 32 --precision float32 --device cpu --previews 0 --prediction v".split()
        flags += ["--steps", 3, "--depth", 1, "--images", 32]
        assert cli("train", source, *own, *flags, "--run", folder / "run") == 0
    else:
        assert train(folder / "run", *flags, steps=1, source=source) == 0
    return folder / "run"


def with_random_weights(path, monkeypatch):
    """From now on whoever opens the run finds them."""
    real = TrainedModel.open.__func__

    def opened(cls, *arguments, **settings):
        model = real(cls, *arguments, **settings)
        torch.manual_seed(1)
        for parameter in model.network.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.5 / parameter[0].numel() ** 0.5)
        return model

    monkeypatch.setattr(TrainedModel, "open", classmethod(opened))
    return TrainedModel.open(in_precision(open_model(path), "float32"), device="cpu")


@pytest.fixture(params=KINDS)
def exported(request, tmp_path, monkeypatch):
    """The model, what it was exported with, and the folder."""
    path = trained(request.param, tmp_path)
    model = with_random_weights(path, monkeypatch)
    flags = KINDS[request.param][1]
    assert cli("export", path, "--to", "onnx", "--out", tmp_path / "out", *flags) == 0
    asked = {a[2:]: b for a, b in pairwise(map(str, flags)) if a.startswith("--") and not b.startswith("--")}
    settings = model.settings(
        sampler=asked["sampler"],
        steps=int(asked.get("steps", 3)),
        guidance=float(asked.get("guidance", 1)),
        clip="--no-clip" not in flags,
    )
    return model, settings, tmp_path / "out", "--half" in flags


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path.read_bytes(), options)


def test_the_network_and_the_whole_way_to_images_are_ours(exported):
    model, settings, folder, half = exported
    network, sampler = session(folder / "network.onnx"), session(folder / "sampler.onnx")
    for batch in (1, 3):
        example = inputs_of(model, batch)
        with torch.no_grad():
            expected = Named(model.network, list(example))(*example.values())
        (found,) = network.run(None, {name: value.numpy() for name, value in example.items()})
        np.testing.assert_allclose(found, expected, atol=2e-2 if half else 2e-5)
    noise = SeededNoise(SEEDS)
    like = torch.empty(len(SEEDS), *model.run.x0_shape)
    fed = {"noise": noise(like)}
    if (labels := labels_of(model.run, SEEDS, None)) is not None:
        fed["label"] = torch.tensor(labels)
    if (text := text_of(model.run, SEEDS, None, model.device)) is not None:
        fed["vectors"], fed["mask"] = text
    about = read_json(folder / "model.json")
    if about["sampler"]["noises"]:
        fed["fresh"] = torch.stack([noise(like) for _ in range(about["sampler"]["noises"])])
    if settings.guidance != 1:
        fed["guidance"] = torch.tensor(settings.guidance)
    assert {one.name for one in sampler.get_inputs()} == fed.keys()
    (images,) = sampler.run(None, {name: value.numpy() for name, value in fed.items()})
    expected = model.draw(settings, SEEDS).numpy()
    assert images.dtype == np.uint8
    assert expected.std() > 10
    assert np.abs(images.astype(int) - expected).max() <= (12 if half else 1)
    assert about["images"] == list(model.run.shape)
    assert len(about["sampler"]["rows"]) == len(about["sampler"]["t"]) + 1
    if settings.guidance != 1:
        (other,) = sampler.run(None, {n: v.numpy() for n, v in (fed | {"guidance": torch.tensor(1.0)}).items()})
        assert np.abs(other.astype(int) - images).max() > 1


def test_half_the_size(tmp_path):
    sizes = []
    for half in (False, True):
        folder = Run("digits").export("onnx", out=tmp_path / str(half), half=half, steps=2)
        sizes.append((folder / "sampler.onnx").stat().st_size)
    assert sizes[1] < 0.62 * sizes[0]


def test_the_program_of_torch_is_the_network(tmp_path):
    folder = Run("digits").export("torch", out=tmp_path / "out")
    network = torch.export.load(folder / "network.pt2").module()
    model = TrainedModel.open(in_precision(open_model(Run("digits").path), "float32"), device="cpu")
    example = inputs_of(model, 5)
    with torch.no_grad():
        torch.testing.assert_close(network(*example.values()), Named(model.network, list(example))(*example.values()))
    assert json.loads((folder / "model.json").read_text())["classes"] == [str(k) for k in range(10)]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--to", "onxx"], "did you mean 'onnx'"),
        (["--to", "torch", "--half"], "--half is for --to onnx and html, got --to torch"),
        (["--to", "onnx", "--steps", 0], "--steps must be at least 1, got 0"),
        ([], "export needs --to onnx|html|diffusers|torch"),
    ],
)
def test_what_is_refused(flags, sentence, capsys, tmp_path):
    assert cli("export", "digits", *flags, "--out", tmp_path / "out") == 2
    assert sentence in plain(capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_what_no_table_holds_is_refused(tmp_path):
    assert train(tmp_path / "run", *KINDS["learned variance"][0], steps=1) == 0
    with pytest.raises(InputError, match="learned variance"):
        Run(tmp_path / "run").export("onnx", sampler="ddpm")
