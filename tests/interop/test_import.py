"""import: a folder that diffusers saved is the same function as a run, there and back; the rest is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

import bytepixels as bp
from bytepixels.randomness import SeededNoise
from bytepixels.runs.run_directory import open_run
from bytepixels.sampling.trained_model import TrainedModel, in_precision
from tests.export.test_export import with_random_weights
from tests.tiny import cli, plain, randomised, train

PLAIN = {"sample_size": 16, "block_out_channels": (32, 64), "layers_per_block": 1}
PLAIN |= {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
DDPM = {
    "downsample_padding": 0,
    "norm_eps": 1e-6,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "attention_head_dim": None,
}
EVERY = {"down_block_types": ("AttnDownBlock2D",) * 2, "up_block_types": ("AttnUpBlock2D",) * 2}
FOUR = ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "DownBlock2D")
MODELS = {  # settings of UNet2DModel, and the backbone that they become
    "its defaults": ({}, "unet2d"),
    "as google/ddpm-cifar10-32": (DDPM | {"norm_num_groups": 8}, "unet"),
    "as google/ddpm-cifar10-32, heads": (DDPM | {"norm_num_groups": 8, "attention_head_dim": 16}, "unet"),
    "heads of several widths": (EVERY | {"attention_head_dim": 16, "norm_num_groups": 16}, "unet2d"),
    "grey, one level": (
        {"in_channels": 1, "out_channels": 1, "block_out_channels": (32,)}
        | {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)},
        "unet2d",
    ),
    "as diffusers' example of training": (
        {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 2, "down_block_types": FOUR}
        | {"up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D")},
        "unet2d",
    ),
    "not square": ({"sample_size": (16, 8), "dropout": 0.1}, "unet2d"),
}


def unet(**changes):
    """A UNet2DModel with random numbers everywhere."""
    model = UNet2DModel(**(PLAIN | changes)).eval()
    return randomised(model)


def loaded(path):
    return TrainedModel.open(in_precision(open_run(path), "float32"), device="cpu")


def check_same(model, theirs, label=None):
    x, t = torch.randn(3, *model.run.x0_shape), torch.tensor([0, 31, 999])
    told = {} if label is None else {"class_labels": label}
    own = () if label is None else (label,)
    with torch.no_grad():
        torch.testing.assert_close(model.network(x, t.float(), *own), theirs(x, t, **told).sample, rtol=0, atol=3e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_the_network_is_the_same_function(kind, tmp_path):
    changes, backbone = MODELS[kind]
    theirs = unet(**changes)
    DDPMPipeline(theirs, DDPMScheduler()).save_pretrained(tmp_path / "theirs")
    model = loaded(bp.import_run(tmp_path / "theirs", tmp_path / "run").path)
    check_same(model, theirs)
    own = model.run.config
    assert own.network.backbone == backbone
    assert own.process.schedule == "linear"
    assert own.process.prediction == "eps"
    assert sum(p.numel() for p in model.network.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert cli("export", tmp_path / "run", "--to", "diffusers", "--out", tmp_path / "back") == 0
    before, after = (
        load_file(tmp_path / one / "unet/diffusion_pytorch_model.safetensors") for one in ("theirs", "back")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    check_same(model, UNet2DModel.from_pretrained(tmp_path / "back/unet", low_cpu_mem_usage=False))


def test_the_first_layout_and_the_old_names(tmp_path):
    """As google/ddpm-cifar10-32 lies on the hub: all files in one folder, attention's layers by their old names."""
    theirs = unet(**DDPM, norm_num_groups=8)
    DDPMPipeline(theirs, DDPMScheduler()).save_pretrained(tmp_path / "new")
    old = tmp_path / "old"
    shutil.copytree(tmp_path / "new/unet", old)
    shutil.copy(tmp_path / "new/scheduler/scheduler_config.json", old)
    shutil.copy(tmp_path / "new/model_index.json", old)
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = load_file(old / "diffusion_pytorch_model.safetensors")
    for new, former in names.items():
        tensors = {name.replace(new, former): tensor for name, tensor in tensors.items()}
    assert "mid_block.attentions.0.query.weight" in tensors
    save_file(tensors, old / "diffusion_pytorch_model.safetensors")
    check_same(loaded(bp.import_run(old, tmp_path / "run").path), theirs)


@pytest.mark.parametrize(
    "flags",
    [
        "--schedule cosine --prediction v --multipliers 1 2 --attention 1 --blocks 2 --heads 2",
        "--schedule linear --no-labels --embedding ddpm",
        "--schedule linear:beta_start=0.001,beta_end=0.1 --no-labels",
        "--schedule sigmoid --zero-terminal-snr --prediction x0",
        "--backbone unet2d --groups 4 --width 16 --norm-eps 1e-4 --head-dim 8 --multipliers 1 2",
    ],
)
def test_there_and_back_is_bitwise_the_same(flags, tmp_path, monkeypatch):
    assert train(tmp_path / "run", *flags.split(), "--timesteps", 60, steps=1) == 0
    before = with_random_weights(tmp_path / "run", monkeypatch)
    classes = ("--by-class",) if before.run.classes else ()
    assert cli("export", tmp_path / "run", "--to", "diffusers", "--out", tmp_path / "out", *classes) == 0
    assert cli("import", tmp_path / "out", "--run", tmp_path / "back") == 0
    after = loaded(tmp_path / "back")
    own, back = before.network.state_dict(), after.network.state_dict()
    assert own.keys() == back.keys()
    assert all(torch.equal(own[name], back[name]) for name in own)
    assert after.run.config.process == before.run.config.process
    assert after.run.classes == before.run.classes
    settings = before.settings(steps=5)
    labels = [1, 2] if classes else None
    assert torch.equal(before.draw(settings, range(2), labels), after.draw(settings, range(2), labels))


def test_it_draws_the_images_of_diffusers(tmp_path):
    """From the same noise, in steps that divide T."""
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", timestep_spacing="trailing", prediction_type="v_prediction"
    )
    theirs = DDIMPipeline(unet(), scheduler)
    theirs.save_pretrained(tmp_path / "theirs")
    model = loaded(bp.import_run(tmp_path / "theirs", tmp_path / "run").path)
    expected = model.draw(model.settings(steps=10), range(5, 7))
    noise = SeededNoise(range(5, 7))
    theirs.set_progress_bar_config(disable=True)
    module = __import__(DDIMPipeline.__module__, fromlist=["randn_tensor"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "randn_tensor", lambda shape, **_: noise(torch.empty(shape)))
        told = {"output_type": "np", "use_clipped_model_output": True}
        images = theirs(batch_size=2, num_inference_steps=10, **told).images
    found = torch.from_numpy(np.round(images * 255)).permute(0, 3, 1, 2)
    assert expected.float().std() > 10
    assert (found - expected.float()).abs().max() <= 1


@pytest.mark.parametrize(("null", "row"), [(None, None), (2, 2)])
def test_classes_without_names(null, row, tmp_path, capsys):
    """Numbers name them; without a row for no class, that is the mean of all."""
    theirs = unet(num_class_embeds=4)
    DDPMPipeline(theirs, DDPMScheduler()).save_pretrained(tmp_path / "theirs")
    model = loaded(bp.import_run(tmp_path / "theirs", tmp_path / "run", null_class=null).path)
    assert ("no row for no class" in capsys.readouterr().err) == (null is None)
    kept = [k for k in range(4) if k != row]
    assert model.run.classes == [str(k) for k in range(len(kept))]
    check_same(
        model,
        lambda x, t, class_labels: theirs(x, t, class_labels=torch.tensor(kept)[class_labels]),
        torch.tensor([1, 0, 2]),
    )
    rows = theirs.class_embedding.weight.detach()
    nothing = rows.mean(0) if row is None else rows[row]
    torch.testing.assert_close(model.network.state_dict()["label.weight"][-1], nothing)


def test_it_is_measured_and_trained_further(tmp_path, capsys):
    """With the images that it was trained on; without them that is said."""
    assert cli("export", "digits", "--to", "diffusers", "--by-class", "--out", tmp_path / "out") == 0
    without, run = tmp_path / "without", tmp_path / "run"
    assert cli("import", tmp_path / "out", "--run", without) == 0
    assert cli("import", tmp_path / "out", "--run", run, "--source", "digits") == 0
    capsys.readouterr()
    for line in (("evaluate",), ("evaluate", "loss"), ("compare",)):
        assert cli(*line, without) == 2
        assert "was imported without images" in plain(capsys.readouterr().err)
    assert cli("report", without) == 0
    assert cli("runs", "show", without) == 0
    assert "imported from" in capsys.readouterr().out
    assert cli("evaluate", "loss", run, "-n", 32, "--device", "cpu") == 0
    index = tmp_path / "out/model_index.json"
    content = json.loads(index.read_text())
    content["id2label"] = {"one": "x"}
    index.write_text(json.dumps(content))
    assert cli("import", tmp_path / "out", "--run", tmp_path / "named", "--source", "digits", "--null-class", 10) == 0
    assert "taken to be, in this order: 0, 1, 2, 3" in plain(capsys.readouterr().err)
    assert cli("train", "digits", "--from", run, "--run", tmp_path / "more", "--images", 64) == 0
    more = open_run(tmp_path / "more").config
    assert more.network == open_run(run).config.network
    assert cli("sample", run, "--label", "3", "-n", 2) == 0


WRONG = {  # settings of the network, of the scheduler, and what is said
    "swish of another kind": ({"act_fn": "gelu"}, {}, "act_fn gelu is nothing that a network here has"),
    "resnet downsampling": ({"downsample_type": "resnet"}, {}, "downsample_type resnet"),
    "scale and shift": ({"resnet_time_scale_shift": "scale_shift"}, {}, "resnet_time_scale_shift scale_shift"),
    "widths": ({"block_out_channels": [32, 48]}, {}, "block_out_channels must be multiples of the first, got [32, 48]"),
    "blocks": ({"up_block_types": ["UpBlock2D", "UpBlock2D"]}, {}, "up_block_types must be"),
    "learned variance": ({"out_channels": 6}, {}, "out_channels must be in_channels, 3, got 6"),
    "embedding": ({"freq_shift": 1}, {}, "flip_sin_to_cos True with freq_shift 1 is no timestep embedding of ours"),
    "no size": ({"sample_size": None}, {}, "give --size HEIGHT WIDTH"),
    "another model": (
        {"_class_name": "UNet2DConditionModel"},
        {},
        "must be of a UNet2DModel, got UNet2DConditionModel",
    ),
    "nonsense": ({"block_out_channels": 7}, {}, "cannot become a run"),
    "groups": ({"norm_num_groups": 24}, {}, "groups must divide the 32 channels of a norm, got 24"),
    "betas": ({}, {"trained_betas": [0.1, 0.2, 0.4]}, "its 3 trained_betas are no schedule of ours"),
    "thresholding": ({}, {"thresholding": True}, "thresholding, and a clip_sample_range other than 1"),
    "another range": ({}, {"clip_sample_range": 2.0}, "thresholding, and a clip_sample_range other than 1"),
    "schedule": ({}, {"beta_schedule": "sigmoid"}, "beta_schedule sigmoid is none of ours"),
    "flow": ({}, {"prediction_type": "flow_prediction"}, "prediction_type flow_prediction is no ddpm"),
    "weights": ({"layers_per_block": 2}, {}, "is not what config.json says"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_become_a_run_is_said_and_nothing_is_written(kind, tmp_path, capsys):
    network, scheduler, why = WRONG[kind]
    DDPMPipeline(unet(), DDPMScheduler()).save_pretrained(tmp_path / "theirs")
    for name, changes in (("unet/config.json", network), ("scheduler/scheduler_config.json", scheduler)):
        path = tmp_path / "theirs" / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert cli("import", tmp_path / "theirs", "--run", tmp_path / "run") == 2
    assert why in plain(capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_what_is_no_folder_of_diffusers(tmp_path, capsys):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/model_index.json").write_text("[" * 100_000)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    for folder, why in (
        ("missing", "config.json: No such file"),
        ("broken", "is no JSON"),
        ("other", "must be of a DDPMPipeline or DDIMPipeline, got StableDiffusionPipeline"),
    ):
        assert cli("import", tmp_path / folder, "--run", tmp_path / "run") == 2
        assert why in plain(capsys.readouterr().err)
    unet().save_pretrained(tmp_path / "alone")
    assert cli("import", tmp_path / "alone", "--run", tmp_path / "run", "--null-class", 3) == 2
    assert "--null-class 3: the model has 0 rows of classes" in plain(capsys.readouterr().err)
    assert cli("import", tmp_path / "alone", "--run", tmp_path / "run") == 0
    assert "DDPM's linear schedule" in plain(capsys.readouterr().err)
    assert cli("import", tmp_path / "alone", "--run", tmp_path / "run") == 2
    assert "is not empty" in plain(capsys.readouterr().err)
