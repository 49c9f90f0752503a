"""The U-Net is DDPM's, layer for layer: the same function as diffusers' UNet2DModel, outputs and gradients."""

import pytest
import torch
from torch import nn

from bytepixels.networks import UNet
from tests.tiny import randomised

CIFAR = {
    "channels": 3,
    "width": 128,
    "multipliers": (1, 2, 2, 2),
    "blocks": 2,
    "attention": (1,),
    "heads": 1,
    "groups": 32,
}
SMALL = {
    "channels": 1,
    "width": 32,
    "multipliers": (1, 2, 2),
    "blocks": 1,
    "attention": (1, 2),
    "heads": 2,
    "groups": 8,
}
DEEP = {
    "channels": 3,
    "width": 48,
    "multipliers": (1, 2, 4),
    "blocks": 3,
    "attention": (0, 1),
    "heads": 1,
    "groups": 12,
}


def reference_unet(channels, width, multipliers, blocks, attention, heads, groups):
    """diffusers' network of the same shape, every parameter random (the zero-initialised ones too), in float64."""
    import diffusers  # a test dependency: without it these tests must fail, not vanish

    levels = range(len(multipliers))
    with torch.device("meta"):
        network = diffusers.UNet2DModel(
            in_channels=channels,
            out_channels=channels,
            block_out_channels=tuple(width * m for m in multipliers),
            layers_per_block=blocks,
            down_block_types=tuple("AttnDownBlock2D" if i in attention else "DownBlock2D" for i in levels),
            up_block_types=tuple("AttnUpBlock2D" if i in attention else "UpBlock2D" for i in reversed(levels)),
            attention_head_dim=None if heads == 1 else width * multipliers[-1] // heads,
            norm_num_groups=groups,
            norm_eps=1e-6,
            downsample_padding=0,
            freq_shift=1,
            flip_sin_to_cos=False,
            dropout=0.1,
        )
    network = network.double().eval().to_empty(device="cpu")
    return randomised(network)


def layer_pairs(ours, theirs):
    """Pairs of layers with the same weights; a list on the right is q, k, v, which ours keeps in one matrix."""
    yield ours.first, theirs.conv_in
    yield ours.norm, theirs.conv_norm_out
    yield ours.last, theirs.conv_out
    yield ours.time[0], theirs.time_embedding.linear_1
    yield ours.time[2], theirs.time_embedding.linear_2
    yield from down_pairs(iter(ours.down), theirs.down_blocks)
    yield from block_pairs(ours.middle[0], theirs.mid_block.resnets[0], theirs.mid_block.attentions[0])
    yield from block_pairs(ours.middle[1], theirs.mid_block.resnets[1], None)
    yield from up_pairs(iter(ours.up), theirs.up_blocks)


def down_pairs(layers, levels):
    for level in levels:
        for i, resnet in enumerate(level.resnets):
            yield from block_pairs(next(layers), resnet, level.attentions[i] if hasattr(level, "attentions") else None)
        if level.downsamplers:
            yield next(layers).conv, level.downsamplers[0].conv


def up_pairs(layers, levels):
    for level in levels:
        for i, resnet in enumerate(level.resnets):
            yield from block_pairs(next(layers), resnet, level.attentions[i] if hasattr(level, "attentions") else None)
        if level.upsamplers:
            yield next(layers).conv, level.upsamplers[0].conv


def block_pairs(block, resnet, attention):
    yield block.norm1, resnet.norm1
    yield block.conv1, resnet.conv1
    yield block.time, resnet.time_emb_proj
    yield block.norm2, resnet.norm2
    yield block.conv2, resnet.conv2
    if resnet.conv_shortcut is not None:
        yield block.shortcut, resnet.conv_shortcut
    assert isinstance(block.attention, nn.Identity) == (attention is None)
    if attention is not None:
        yield block.attention.norm, attention.group_norm
        yield block.attention.qkv, [attention.to_q, attention.to_k, attention.to_v]
        yield block.attention.project, attention.to_out[0]


def joined(theirs, read):
    """One tensor per parameter of ours, read from their layer or from their three."""
    layers = theirs if isinstance(theirs, list) else [theirs]
    return {name: torch.cat([read(getattr(layer, name)) for layer in layers]) for name in ("weight", "bias")}


@pytest.fixture(scope="module", params=[CIFAR, SMALL, DEEP], ids=["cifar", "small", "deep"])
def pair(request):
    theirs = reference_unet(**request.param)
    arguments = {name: value for name, value in request.param.items() if name != "groups"}
    with torch.device("meta"):
        ours = UNet(**arguments, embedding="ddpm").double().eval()
    ours.to_empty(device="cpu")
    seen = 0
    for layer, other in layer_pairs(ours, theirs):
        layer.load_state_dict(joined(other, lambda p: p.detach()))
        seen += sum(p.numel() for p in layer.parameters())
    assert seen == sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    return ours, theirs


@pytest.mark.parametrize(
    "size", [(16, 8), *(pytest.param(each, marks=pytest.mark.slow) for each in [(32, 32), (32, 48)])]
)
def test_same_function(pair, size):
    ours, theirs = pair
    x = torch.randn(2, ours.channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([3, 871])
    with torch.no_grad():
        expected = theirs(x, t).sample
        error = (ours(x, t) - expected).abs().max() / expected.abs().max()
    assert expected.std() > 0.1
    assert error < 1e-10


def test_same_gradients(pair):
    ours, theirs = pair
    x = torch.randn(2, ours.channels, 16, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    t, weights = torch.tensor([0, 500]), torch.randn_like(x)
    x_ours, x_theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    (ours(x_ours, t) * weights).sum().backward()
    (theirs(x_theirs, t).sample * weights).sum().backward()
    torch.testing.assert_close(x_ours.grad, x_theirs.grad, rtol=1e-9, atol=1e-10 * float(x_theirs.grad.abs().max()))
    for layer, other in layer_pairs(ours, theirs):
        for name, expected in joined(other, lambda p: p.grad).items():
            atol = 1e-10 * float(expected.abs().max()) + 1e-12  # biases before a one-channel group norm: exactly zero
            torch.testing.assert_close(getattr(layer, name).grad, expected, rtol=1e-9, atol=atol)


def test_the_default_is_ddpms_cifar10_network():
    with torch.device("meta"):
        network = UNet()
    assert sum(p.numel() for p in network.parameters()) == 35_746_307
    assert network.embed.__name__ == "timestep_embedding"
