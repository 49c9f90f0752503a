"""The first stage: shapes and refusals, codes by brute force, and which loss moves which network."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from bytepixels.build import build_first_stage
from bytepixels.codec.codec import PixelCodec
from bytepixels.codec.reconstruction_losses import gradient_error, hinge, kl_divergence, ms_ssim
from bytepixels.config.presets import autoencoder_config
from bytepixels.errors import InputError
from bytepixels.networks import Autoencoder, quantizer
from bytepixels.networks.autoencoder import LOG_VARIANCE
from bytepixels.networks.discriminator import PatchDiscriminator, patch_layers
from bytepixels.networks.quantizer import Quantizer
from bytepixels.training.autoencoder_task import build_codes, build_reconstruction_loss

CPU = torch.device("cpu")


def tiny(kind="kl", levels=2, channels=1, seed=0):
    """With weights that are nowhere zero, so that every layer counts."""
    torch.manual_seed(seed)
    network = Autoencoder(channels, 8, (1, 2, 2, 3)[:levels], 1, 3, kind, codes=5)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def normal(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------- autoencoder


@pytest.mark.parametrize("kind", ["kl", "vq"])
@pytest.mark.parametrize(("levels", "factor"), [(1, 1), (2, 2), (3, 4), (4, 8)])
def test_shapes(kind, levels, factor):
    network, x = tiny(kind, levels), normal(2, 1, 16, 24)
    mean, std = network.encode(x)
    assert network.factor == factor
    assert mean.shape == std.shape == (2, 3, 16 // factor, 24 // factor)
    assert (std > 0).all() if kind == "kl" else (std == 0).all()
    assert network.decode(mean).shape == network(x).shape == x.shape
    assert torch.equal(network(x), network.decode(mean))
    noise = normal(*mean.shape, seed=2)
    assert torch.equal(network(x, noise), network.decode(mean + std * noise))


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_settings_make_the_same_network(kind):
    network = Autoencoder(2, 12, (1, 3), 2, 5, kind, 7, False, 3)
    again = Autoencoder(**network.settings)
    assert again.settings == network.settings
    assert [(k, v.shape) for k, v in again.state_dict().items()] == [
        (k, v.shape) for k, v in network.state_dict().items()
    ]
    again.load_state_dict(network.state_dict())
    x = normal(1, 2, 6, 4)
    assert torch.equal(network(x), again(x))


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_an_image_does_not_depend_on_those_beside_it(kind):
    network, x = tiny(kind), normal(3, 1, 6, 8)
    torch.testing.assert_close(network(x)[1:2], network(x[1:2]), atol=1e-5, rtol=1e-5)


def test_deviations_stay_finite():
    network = tiny()
    for bias, log_variance in zip((-1e9, 1e9), LOG_VARIANCE, strict=True):
        torch.nn.init.constant_(network.to_latent.bias, bias)
        _, std = network.encode(normal(1, 1, 4, 4))
        torch.testing.assert_close(std.log(), torch.full_like(std, log_variance / 2))


def test_attention_can_be_left_out():
    for attention in (True, False):
        network = Autoencoder(1, 8, (1,), 1, 2, attention=attention)
        assert any("attention" in name for name in network.state_dict()) == attention


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "gan"}, "kind must be one of kl, vq; got 'gan'"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"width": 3}, "width must be at least 4, got 3"),
        ({"width": 8.5}, "width must be a whole number, got 8.5"),
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ({"latent_channels": 0}, "latent_channels must be at least 1, got 0"),
        ({"multipliers": ()}, "multipliers must name at least one level, got none"),
        ({"multipliers": (1, 0)}, "multipliers must be at least 1, got 0"),
        ({"groups": 3}, "groups must divide the width 8, got 3"),
        ({"groups": 0}, "groups must be at least 1, got 0"),
        ({"kind": "vq", "codes": 1}, "codes must be at least 2, got 1"),
    ],
)
def test_bad_settings(settings, said):
    with pytest.raises(InputError) as error:
        Autoencoder(**{"width": 8, "multipliers": (1,)} | settings)
    assert str(error.value) == said


@pytest.mark.parametrize("sides", [(6, 8), (8, 9), (0, 4)])
def test_sides_that_the_factor_does_not_divide(sides):
    with pytest.raises(InputError, match=f"must be a multiple of 4, got {sides[0]} x {sides[1]}$"):
        tiny(levels=3).encode(torch.zeros(1, 1, *sides))


def test_inputs_of_another_shape():
    network = tiny()
    for bad in ((1, 3, 4, 4), (1, 4, 4)):
        with pytest.raises(InputError, match=r"^x must be \[B, 1, H, W\], got \[1, "):
            network.encode(torch.zeros(bad))
        with pytest.raises(InputError, match=r"^z must be \[B, 3, h, w\], got \[1, "):
            network.decode(torch.zeros((1, 2, 4, 4) if len(bad) == 4 else bad))


# ---------------------------------------------------------------------------- codes


def brute_force(codes, z):
    """The numbers of the nearest codes [B, h, w], in float64."""
    apart = (z.movedim(1, -1).double()[..., None, :] - codes.double()).square().sum(-1)
    return apart.argmin(-1)


@pytest.mark.parametrize("block", [2**24, 11])
def test_every_vector_is_put_to_its_nearest_code(monkeypatch, block):
    monkeypatch.setattr(quantizer, "BLOCK", block)
    network, z = tiny("vq"), normal(3, 3, 4, 5)
    index = brute_force(network.quantizer.codes, z)
    assert torch.equal(network.quantizer.nearest(z), index)
    assert len(index.unique()) == 5
    found, chosen = network.quantizer(z)
    assert torch.equal(chosen, index)
    torch.testing.assert_close(found, network.quantizer.codes[index].permute(0, 3, 1, 2))
    torch.testing.assert_close(network.decode(z), network.render(network.quantizer.codes[index].permute(0, 3, 1, 2)))


def test_near_codes_are_told_apart_in_bfloat16():
    own = Quantizer(8, 2)
    own.codes.copy_(3 + 0.01 * torch.arange(16.0).view(8, 2))
    z = 3 + 0.16 * torch.rand(1, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = own.nearest(z)
    assert (found == brute_force(own.codes, z)).float().mean() > 0.95  # float32's own rounding, of 9 + 9
    assert len(found.unique()) == 8


def test_gradients_pass_straight_through():
    network = tiny("vq")
    z = normal(2, 3, 4, 4).requires_grad_()
    network.decode(z).square().sum().backward()
    codes = network.quantizer(z)[0].detach().requires_grad_()
    network.render(codes).square().sum().backward()
    torch.testing.assert_close(z.grad, codes.grad)
    assert z.grad.abs().sum() > 0
    assert "quantizer.codes" in network.state_dict()
    assert "quantizer.codes" not in dict(network.named_parameters())


# ---------------------------------------------------------------------------- discriminator


def test_logits_of_an_image_do_not_depend_on_those_beside_it():
    torch.manual_seed(0)
    judge, x = PatchDiscriminator(1, 8, 2), normal(4, 1, 16, 20)
    alone = torch.cat([judge(one) for one in x.split(1)])
    torch.testing.assert_close(judge(x), alone, atol=1e-5, rtol=1e-5)
    assert alone.shape[1] == 1
    assert alone.shape[2:].numel() > 1


@pytest.mark.parametrize(("sides", "layers"), [((6, 6), 1), ((11, 90), 1), ((12, 12), 2), ((24, 30), 3), ((99, 99), 3)])
def test_as_many_layers_as_leave_a_logit(sides, layers):
    assert patch_layers(*sides) == patch_layers(*sides[::-1]) == layers
    assert PatchDiscriminator(1, 4, layers)(torch.zeros(1, 1, *sides)).numel() >= 1


def test_images_too_small_for_a_discriminator():
    with pytest.raises(InputError, match=r"^the shorter side .* for --discriminator must be at least 6, got 5$"):
        patch_layers(40, 5)


# ---------------------------------------------------------------------------- losses


def staged(**settings):
    """A first stage, its loss, images and noise; with weights that are nowhere zero."""
    own = {"width": 8, "blocks": 1, "factor": 2, "latent_channels": 3, "codes": 5} | settings
    config = autoencoder_config()
    config = replace(config, autoencoder=replace(config.autoencoder, **own))
    config = replace(config, train=replace(config.train, precision="float32"))
    model = build_first_stage(config, (1, 12, 14), CPU)
    torch.manual_seed(3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    images = torch.randint(256, (3, 1, 12, 14), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return config, model, images, normal(3, 3, 6, 7)


def gradients(loss, network):
    found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, network.parameters(), strict=True)]


def test_the_loss_of_kl_is_its_parts():
    config, model, images, noise = staged(ssim=0.3, gradient=0.7, kl=0.05, error="l2")
    found = build_reconstruction_loss(config, CPU)(model, images, noise, torch.ones(3))
    x = PixelCodec().to_model(images)
    mean, std = model.autoencoder.encode(x)
    y = model.autoencoder.decode(mean + std * noise)
    expected = (x - y).square().mean((1, 2, 3)) + 0.3 * (1 - ms_ssim(x, y)) + 0.7 * gradient_error(x, y)
    torch.testing.assert_close(found, expected + 0.05 * kl_divergence(mean, std) / (12 * 14))
    assert found.shape == (3,)
    assert found.dtype == torch.float32


def test_the_loss_of_vq_is_its_parts_and_its_codes_take_note():
    config, model, images, noise = staged(kind="vq", ssim=0, gradient=0, commitment=2.0)
    codes = build_codes(model, 0)
    found = build_reconstruction_loss(config, CPU, codes)(model, images, noise, torch.ones(3))
    x = PixelCodec().to_model(images)
    mean, _ = model.autoencoder.encode(x)
    nearest = model.autoencoder.quantizer.look_up(brute_force(model.autoencoder.quantizer.codes, mean))
    y = model.autoencoder.render(nearest)
    torch.testing.assert_close(found, (x - y).abs().mean((1, 2, 3)) + 2 * (mean - nearest).square().mean((1, 2, 3)))
    ((latents, index),) = codes.noted
    torch.testing.assert_close(latents, mean)
    assert torch.equal(index, brute_force(model.autoencoder.quantizer.codes, mean))
    build_reconstruction_loss(config, CPU)(model, images, noise, torch.ones(3))
    assert len(codes.noted) == 1
    assert build_codes(staged()[1], 0) is None


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_each_loss_moves_its_own_network(kind):
    """Before the discriminator begins nothing moves it. Then the hinge moves it alone, and its word the other alone."""
    config, model, images, noise = staged(kind=kind, discriminator=0.5, ssim=0, gradient=0, kl=0)
    loss = build_reconstruction_loss(config, CPU)
    before, after = (loss(model.train(), images, noise, torch.full((3,), begun)).sum() for begun in (0.0, 1.0))
    own, judge = model.autoencoder, model.discriminator
    assert all((gradient == 0).all() for gradient in gradients(before, judge))

    x = PixelCodec().to_model(images)
    y = own(x, noise) if kind == "kl" else own(x)
    by_hinge = gradients(hinge(judge(x), judge(y.detach())).sum(), judge)
    torch.testing.assert_close(gradients(after, judge), by_hinge, atol=1e-5, rtol=1e-4)
    assert any(gradient.abs().sum() > 0 for gradient in by_hinge)

    error, judged = F.l1_loss(y, x, reduction="none").mean((1, 2, 3)), -judge(y).mean((1, 2, 3))
    slopes = [torch.autograd.grad(one.sum(), y, retain_graph=True)[0].flatten(1).norm(dim=1) for one in (error, judged)]
    weight = 0.5 * slopes[0] / (slopes[1] + 1e-4)
    moved = [b - a for a, b in zip(gradients(before, own), gradients(after, own), strict=True)]
    torch.testing.assert_close(moved, gradients((weight.detach() * judged).sum(), own), atol=1e-5, rtol=1e-3)
    assert any(gradient.abs().sum() > 0 for gradient in moved)


def test_a_discriminator_is_only_heard_in_training():
    config, model, images, noise = staged(discriminator=0.5)
    loss = build_reconstruction_loss(config, CPU)
    heard, silent = (loss(model.train(mode), images, noise, torch.ones(3)) for mode in (True, False))
    assert (heard != silent).all()
    torch.testing.assert_close(silent, loss(model.train(), images, noise, torch.zeros(3)))


def test_weights_are_a_function_of_the_seed():
    config, *_ = staged()
    one, same = (build_first_stage(config, (1, 12, 14), CPU).state_dict() for _ in range(2))
    other = build_first_stage(replace(config, train=replace(config.train, seed=5)), (1, 12, 14), CPU).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(InputError, match=r"must be a multiple of 2, got 12 x 13$"):
        build_first_stage(config, (1, 12, 13), CPU)
