"""diffusers' AutoencoderKL, saved by diffusers, is the same function here; other folders are refused in a sentence."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from bytepixels.errors import InputError
from bytepixels.interop.diffusers_autoencoder import is_autoencoder_kl, read_autoencoder_kl
from bytepixels.interop.diffusers_folder import CONFIG, WEIGHTS
from tests.tiny import randomised

SMALL = {
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (16, 32, 32),
    "layers_per_block": 2,
    "norm_num_groups": 8,
}
VARIANTS = {
    "small": {},
    "one level": {"block_out_channels": (16,), "down_block_types": ("DownEncoderBlock2D",), "layers_per_block": 1}
    | {"up_block_types": ("UpDecoderBlock2D",), "in_channels": 1, "out_channels": 1, "latent_channels": 2},
    "no quant": {"use_quant_conv": False, "use_post_quant_conv": False, "latent_channels": 16},
    "no attention": {"mid_block_add_attention": False},
}


def saved(folder, **changes):
    """A network of diffusers with random numbers everywhere, and its folder."""
    import diffusers

    theirs = diffusers.AutoencoderKL(**(SMALL | changes)).eval()
    randomised(theirs)
    theirs.save_pretrained(folder)
    return theirs


def check_same(ours, theirs, channels=3):
    x = torch.randn(2, channels, 24, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mean, std = ours.encode(x)
        law = theirs.encode(x).latent_dist
        torch.testing.assert_close(mean, law.mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(std, law.std, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.decode(mean), theirs.decode(mean).sample, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_function(tmp_path, variant):
    theirs = saved(tmp_path, **VARIANTS[variant])
    ours = read_autoencoder_kl(tmp_path)
    check_same(ours, theirs, ours.channels)
    assert not ours.training
    assert all(p.requires_grad for p in ours.parameters())


def test_half_precision_and_old_names_of_attention(tmp_path):
    theirs = saved(tmp_path).half().float()
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in load_file(tmp_path / WEIGHTS).items():
        for new, before in old.items():
            name = name.replace(f".{new}.", f".{before}.")
        renamed[name] = tensor.half()
    assert any("proj_attn" in name for name in renamed)
    save_file(renamed, tmp_path / WEIGHTS)
    check_same(read_autoencoder_kl(tmp_path), theirs)


def rewrite(folder, **changes):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"_class_name": "UNet2DModel"}, "must be of a diffusers AutoencoderKL, got UNet2DModel"),
        ({"act_fn": "relu"}, "act_fn must be silu, got relu"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 3}, "down_block_types must be .*, got .*AttnDown"),
        ({"out_channels": 6}, "out_channels must be 3, got 6"),
        ({"block_out_channels": [16, 24, 32]}, "block_out_channels must be multiples of the first"),
        ({"norm_num_groups": 5}, "describes no autoencoder of ours: groups must divide the width 16, got 5"),
        ({"layers_per_block": "two"}, "describes no autoencoder of ours"),
        ({"block_out_channels": 16}, "describes no autoencoder of ours"),
        ({"block_out_channels": [0, 0, 0]}, "describes no autoencoder of ours"),
        ({"block_out_channels": ["a", "b", "c"]}, "describes no autoencoder of ours"),
        ({"layers_per_block": 1}, r"is not what config.json says: it has \w+coder.\S+resnets.\S+ besides"),
        ({"layers_per_block": 3}, "is not what config.json says: it has no encoder.down_blocks.0.resnets.2"),
        ({"mid_block_add_attention": False}, "is not what config.json says: it has .*attentions.* besides"),
        ({"latent_channels": 5}, r"is not what config.json says: encoder.conv_out.weight is \[8, .* fits"),
    ],
)
def test_other_networks_are_refused(tmp_path, changes, sentence):
    saved(tmp_path)
    rewrite(tmp_path, **changes)
    with pytest.raises(InputError, match=sentence):
        read_autoencoder_kl(tmp_path)


def test_other_folders_are_refused(tmp_path):
    assert not is_autoencoder_kl(tmp_path)
    with pytest.raises(InputError, match=r"is no folder of a diffusers AutoencoderKL: config.json: No such file"):
        read_autoencoder_kl(tmp_path)
    (tmp_path / CONFIG).write_text("{")
    with pytest.raises(InputError, match=r"config\.json is no JSON"):
        read_autoencoder_kl(tmp_path)
    (tmp_path / CONFIG).write_text("[]")
    with pytest.raises(InputError, match="must be of a diffusers AutoencoderKL, got list"):
        read_autoencoder_kl(tmp_path)
    assert not is_autoencoder_kl(tmp_path)
    saved(tmp_path)
    assert is_autoencoder_kl(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"no tensors")
    with pytest.raises(InputError, match="is no safetensors file"):
        read_autoencoder_kl(tmp_path)
    (tmp_path / WEIGHTS).rename(tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(
        InputError, match=r"has no diffusion_pytorch_model.safetensors; save it with safe_serialization"
    ):
        read_autoencoder_kl(tmp_path)
