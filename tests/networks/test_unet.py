"""The U-Net's contract: sizes, labels, errors, what a fresh network does, and what training needs of it."""

import pytest
import torch
from torch import nn

from bytepixels.errors import InputError
from bytepixels.networks import UNet
from bytepixels.networks.blocks import Attention, Downsample, ResidualBlock, Upsample, group_count


def small(**changes):
    arguments = {"channels": 1, "width": 8, "multipliers": (1, 2, 2), "blocks": 1, "attention": (1,), "dropout": 0.0}
    return UNet(**(arguments | changes))


def awake(network, seed=0):
    """The network with random numbers in place of its zeros (a fresh one returns zeros whatever it reads)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            if not p.any():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
    return network


def batch(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), torch.arange(shape[0]) * 90


def test_every_image_reads_its_own_pixels_time_and_label():
    network = awake(small(num_classes=3)).eval()
    x, t = batch(3, 1, 8, 8)
    label = torch.tensor([0, 1, 2])
    before = network(x, t, label)
    for changed in [
        network(x + torch.tensor([0, 1.0, 0]).view(3, 1, 1, 1), t, label),
        network(x, t + torch.tensor([0, 1, 0]), label),
        network(x, t, torch.tensor([0, 2, 2])),
    ]:
        moved = (changed - before).abs().amax(dim=(1, 2, 3))
        assert moved[1] > 1e-4
        assert moved[0] < 1e-6
        assert moved[2] < 1e-6


def test_every_output_pixel_sees_every_input_pixel():
    network = awake(small()).eval()
    x, t = batch(1, 1, 12, 12)
    corner = x.clone()
    corner[0, 0, 0, 0] += 5
    assert ((network(corner, t) - network(x, t)).abs() > 0).all()


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (4, 4), (5, 5), (7, 31), (17, 16), (4, 40), (6, 9)])
@pytest.mark.parametrize("channels", [1, 3])
def test_sizes(size, channels):
    network = awake(small(channels=channels)).eval()
    x, t = batch(2, channels, *size)
    out = network(x, t)
    assert out.shape == x.shape
    assert out.isfinite().all()
    alone = network(x[:1], t[:1])  # an image does not depend on its neighbours in the batch
    torch.testing.assert_close(alone, out[:1], rtol=1e-4, atol=1e-5)


def test_an_empty_batch():
    assert small(num_classes=2)(torch.zeros(0, 1, 8, 8), torch.zeros(0), torch.zeros(0).long()).shape == (0, 1, 8, 8)


def test_out_channels():
    assert small(out_channels=5)(*batch(2, 1, 8, 8)).shape == (2, 5, 8, 8)


def test_integer_and_floating_times_agree():
    network = awake(small()).eval()
    x, t = batch(2, 1, 8, 8)
    assert torch.equal(network(x, t), network(x, t.float()))
    assert not torch.equal(network(x, t), network(x, t + 0.5))


def test_the_embeddings_differ():
    one, other = awake(small()), awake(small(embedding="ddpm"))
    other.load_state_dict(one.state_dict())
    x, t = batch(2, 1, 8, 8)
    assert not torch.allclose(one(x, t), other(x, t), atol=1e-3)


def test_a_fresh_network_returns_zeros_and_its_blocks_are_the_identity():
    network = small(num_classes=2)
    x, t = batch(2, 1, 8, 8)
    assert not network(x, t, torch.tensor([0, 1])).any()
    h = torch.randn(2, 8, 6, 6)
    assert torch.equal(ResidualBlock(8, 8, 4, groups=2, dropout=0.5, heads=2)(h, torch.randn(2, 4)), h)


def test_gradients_reach_every_parameter():
    network = awake(small(num_classes=2, heads=2))
    x, t = batch(3, 1, 8, 8)
    network(x, t, torch.tensor([0, 1, 2])).square().sum().backward()
    for name, p in network.named_parameters():
        rows = p.grad if name == "label.weight" else p.grad[None]
        assert all(row.abs().max() > 1e-9 for row in rows), name


def test_a_fresh_network_learns():
    """From the zeros a step of descent must move something, or training never starts."""
    network = small()
    x, t = batch(4, 1, 8, 8)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = (network(x, t) - x.flip(3)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


def test_no_label_is_the_null_label():
    network = awake(small(num_classes=3)).eval()
    x, t = batch(2, 1, 8, 8)
    assert network.null_label == 3
    assert torch.equal(network(x, t), network(x, t, torch.tensor([3, 3])))
    assert not torch.equal(network(x, t), network(x, t, torch.tensor([0, 3])))
    assert small().null_label is None


def test_dropout_only_while_training():
    network = awake(small(dropout=0.5))
    x, t = batch(2, 1, 8, 8)
    assert not torch.equal(network(x, t), network(x, t))
    network.eval()
    assert torch.equal(network(x, t), network(x, t))


def test_state_dict_round_trip():
    one, other = awake(small(num_classes=2)).eval(), awake(small(num_classes=2), seed=1).eval()
    x, t = batch(2, 1, 8, 8)
    assert not torch.equal(one(x, t), other(x, t))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x, t), other(x, t))


def test_channels_last_gives_the_same_numbers_and_stays_channels_last():
    network = awake(small(width=16, channels=3, heads=2)).eval()
    x, t = batch(2, 3, 8, 12)
    expected = network(x, t)
    seen = []
    network.to(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, ResidualBlock | Attention | Downsample | Upsample | nn.GroupNorm | nn.Conv2d):
            module.register_forward_hook(lambda _, __, out: seen.append(out))
    torch.testing.assert_close(network(x.to(memory_format=torch.channels_last), t), expected, rtol=1e-4, atol=1e-5)
    assert all(h.is_contiguous(memory_format=torch.channels_last) for h in seen)


def test_autocast_computes_in_bfloat16_but_keeps_the_times_exact():
    network = awake(small(num_classes=2)).eval()
    x, t = batch(2, 1, 8, 8)
    embeddings = []
    network.time.register_forward_pre_hook(lambda _, inputs: embeddings.append(inputs[0]))
    expected = network(x, t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(x, t)
    assert out.dtype == x.dtype
    assert torch.equal(*embeddings)
    assert 1e-5 < (out - expected).abs().max() < 0.05 * expected.abs().max()


def test_one_graph_for_the_compiler():
    network = awake(small(num_classes=2)).eval()
    x, t = batch(2, 1, 8, 8)
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    label = torch.tensor([0, 1])
    torch.testing.assert_close(compiled(x, t, label), network(x, t, label))


@pytest.mark.parametrize(
    ("width", "groups"), [(128, 32), (256, 32), (64, 16), (48, 12), (32, 8), (8, 2), (33, 3), (37, 1), (4, 1)]
)
def test_groups_divide_the_width_and_hold_four_channels(width, groups):
    assert group_count(width) == groups


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"multipliers": ()}, "multipliers must name at least one level, got none"),
        ({"multipliers": (1, 0, 2)}, "multipliers must be at least 1, got 0"),
        ({"attention": (3,)}, r"attention \(a level\) must be in 0..2, got 3"),
        ({"attention": (-1,)}, r"attention \(a level\) must be in 0..2, got -1"),
        ({"heads": 3}, "heads must divide the 16 channels of level 1, got 3"),
        ({"heads": 3, "attention": ()}, "heads must divide the 16 channels of level 2, got 3"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1, got -0.1"),
        ({"dropout": float("nan")}, "dropout must be at least 0 and below 1, got nan"),
        ({"embedding": "artcle"}, "embedding must be one of article, ddpm; got 'artcle'; did you mean 'article'?"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"out_channels": 0}, "out_channels must be at least 1, got 0"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ({"width": 2}, "width must be at least 4, got 2"),
    ],
)
def test_arguments_that_do_not_fit(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        small(**changes)


@pytest.mark.parametrize(
    ("x", "t", "label", "sentence"),
    [
        ((2, 3, 8, 8), [0, 1], None, r"x must be \[B, 1, H, W\], got \[2, 3, 8, 8\]"),
        ((2, 8, 8), [0, 1], None, r"x must be \[B, 1, H, W\], got \[2, 8, 8\]"),
        ((2, 1, 12, 3), [0, 1], None, "12 x 3 images are too small for 3 levels: each side must be at least 4"),
        ((2, 1, 8, 8), [0], None, r"t must be \[2\], one time per image, got \[1\]"),
        ((2, 1, 8, 8), [0, 1], [0, 3], "label must be in 0..2, got 3"),
        ((2, 1, 8, 8), [0, 1], [-1, 0], "label must be in 0..2, got -1"),
        ((2, 1, 8, 8), [0, 1], [0], r"label must be \[2\] of integers, got \[1\] torch.int64"),
        ((2, 1, 8, 8), [0, 1], [0.0, 1.0], r"label must be \[2\] of integers, got \[2\] torch.float32"),
    ],
)
def test_inputs_that_do_not_fit(x, t, label, sentence):
    label = None if label is None else torch.tensor(label)
    with pytest.raises(InputError, match=sentence):
        small(num_classes=2)(torch.zeros(x), torch.tensor(t), label)


def test_labels_need_a_network_with_classes():
    with pytest.raises(InputError, match="this network has no classes"):
        small()(*batch(2, 1, 8, 8), torch.tensor([0, 1]))
