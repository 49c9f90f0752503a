"""uint8 <-> [-1, 1], and uint8 <-> whitened latents."""

import math

import numpy as np
import pytest
import torch

from bytepixels import (
    CLEAN,
    Denoiser,
    EDMProcess,
    GaussianDiffusion,
    LatentCodec,
    PixelCodec,
    RectifiedFlow,
    clipped,
    cosine_schedule,
)
from bytepixels.codec.codec import encoder_of
from bytepixels.errors import InputError
from tests.codec.autoencoders import Shuffled, Uneven

ALL = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)


def test_every_grey_level_returns():
    assert torch.equal(PixelCodec().to_images(PixelCodec().to_model(ALL)), ALL)


def test_grey_levels_are_even_from_minus_one_to_one():
    x0 = PixelCodec().to_model(ALL)
    assert x0.dtype == torch.float32
    torch.testing.assert_close(x0.flatten(), torch.arange(-255, 256, 2) / 255, rtol=0, atol=2e-7)
    assert x0.flatten()[[0, 255]].tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("x0", "grey"), [(-1, 0), (1, 255), (-7, 0), (1.5, 255), (0.001, 128), (-0.001, 127), (-1 + 1.4 / 127.5, 1)]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_x0_is_clamped_and_rounded_to_the_nearest_grey(x0, grey, dtype):
    images = PixelCodec().to_images(torch.full((1, 1, 1, 1), x0, dtype=dtype))
    assert images.dtype == torch.uint8
    assert images.item() == grey


def test_half_precision_comes_back_within_its_own_rounding():
    x0 = PixelCodec().to_model(ALL).to(torch.bfloat16)
    assert (PixelCodec().to_images(x0).int() - ALL.int()).abs().max() <= 1


def test_what_was_given_is_left_alone():
    images = ALL.clone()
    PixelCodec().to_model(images)
    assert torch.equal(images, ALL)
    x0 = torch.full((1, 1, 2, 2), 3.0)
    PixelCodec().to_images(x0)
    assert (x0 == 3).all()


def test_images_that_are_floats_already_are_refused():
    with pytest.raises(ValueError, match=r"images must be uint8, got torch\.float32"):
        PixelCodec().to_model(ALL.float())


def test_pixels_keep_their_shape_and_lie_between_minus_one_and_one():
    assert PixelCodec().shape((3, 4, 6)) == (3, 4, 6)
    assert PixelCodec().bounds == (-1, 1)


# latents


def some_images(count=20, channels=3, height=6, width=8, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, channels, height, width), np.uint8))


def codec_of(autoencoder, mean=None, deviation=None, low=None, high=None, **options):
    """With statistics that are no particular data's."""
    z = autoencoder.latent_channels
    mean, deviation = mean or [0.5 * k - 2 for k in range(z)], deviation or [0.1 * k + 0.2 for k in range(z)]
    return LatentCodec(autoencoder, mean, deviation, low or [-5.0] * z, high or [7.0] * z, **options)


@pytest.mark.parametrize("sigma_data", [1.0, 0.5])
@pytest.mark.parametrize(("channels", "height", "width"), [(3, 6, 8), (1, 2, 2), (4, 10, 2)])
def test_images_come_back_from_whitened_latents(channels, height, width, sigma_data):
    images = some_images(20, channels, height, width)
    codec = codec_of(Shuffled(channels), sigma_data=sigma_data)
    x0 = codec.to_model(images)
    assert x0.dtype == torch.float32
    assert x0.shape[1:] == codec.shape((channels, height, width)) == (4 * channels, height // 2, width // 2)
    assert torch.equal(codec.to_images(x0), images)


@pytest.mark.parametrize("sigma_data", [1.0, 0.5])
def test_whitening_is_by_channel(sigma_data):
    autoencoder = Uneven()
    codec = codec_of(autoencoder, [1.0, -2.0, 30.0], [2.0, 0.5, 4.0], sigma_data=sigma_data)
    latents = torch.randn(5, 3, 3, 4) * 10
    x0 = codec.to_model(latents)
    for channel, (mean, deviation) in enumerate([(1, 2), (-2, 0.5), (30, 4)]):
        torch.testing.assert_close(x0[:, channel], sigma_data * (latents[:, channel] - mean) / deviation)


def test_images_are_encoded_to_the_mean_of_their_posterior():
    autoencoder, images = Uneven(), some_images()
    codec = codec_of(autoencoder)
    mean, deviation = encoder_of(autoencoder)(images)
    assert (deviation > 0).all()
    torch.testing.assert_close(codec.to_model(images), codec.to_model(mean))


def test_an_encoder_sees_pixels_from_minus_one_to_one():
    autoencoder, images = Uneven(), some_images()
    with torch.no_grad():
        expected = autoencoder.encode(images.float() / 127.5 - 1)
    for one, other in zip(encoder_of(autoencoder)(images), expected, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("process", [GaussianDiffusion(), EDMProcess(), RectifiedFlow()])
def test_every_process_sees_the_deviation_that_it_takes_x0_to_have(process):
    images, autoencoder = some_images(200), Shuffled()
    latents = encoder_of(autoencoder)(images)[0].double()
    mean, deviation = (of((0, 2, 3)).tolist() for of in (latents.mean, latents.std))
    x0 = codec_of(autoencoder, mean, deviation, sigma_data=process.sigma_data).to_model(images)
    torch.testing.assert_close(x0.std((0, 2, 3)), torch.full((12,), process.sigma_data))
    assert x0.mean((0, 2, 3)).abs().max() < 1e-4


@pytest.mark.parametrize("at_a_time", [1, 3, 20, 64])
def test_decoding_takes_few_at_a_time(at_a_time):
    autoencoder, images = Shuffled(), some_images(20)
    codec = codec_of(autoencoder, at_a_time=at_a_time)
    assert torch.equal(codec.to_images(codec.to_model(images)), images)
    assert max(autoencoder.calls) == min(at_a_time, 20)
    assert sum(autoencoder.calls) == 20


def test_encoding_takes_few_at_a_time(monkeypatch):
    autoencoder, seen = Shuffled(), []
    encode = autoencoder.encode
    monkeypatch.setattr(autoencoder, "encode", lambda x: seen.append(len(x)) or encode(x))
    codec_of(autoencoder, at_a_time=8).to_model(some_images(20))
    assert seen == [8, 8, 4]


def test_no_gradient_goes_through_the_autoencoder():
    codec = codec_of(Uneven())
    x0 = codec.to_model(some_images())
    assert not x0.requires_grad
    assert not encoder_of(Uneven())(some_images())[0].requires_grad
    codec.to_images(x0.requires_grad_())


def test_decoded_images_are_clamped_and_x0_of_any_precision_is_taken():
    codec = codec_of(Shuffled())
    far = torch.full((2, 12, 3, 4), 1e4)
    assert torch.equal(codec.to_images(far), torch.full((2, 3, 6, 8), 255, dtype=torch.uint8))
    assert torch.equal(codec.to_images(-far), torch.zeros(2, 3, 6, 8, dtype=torch.uint8))
    x0 = codec.to_model(some_images())
    assert torch.equal(codec.to_images(x0.double()), some_images())
    assert torch.equal(codec.to_images(x0.bfloat16()), codec.to_images(x0.bfloat16().float()))


def test_what_was_given_to_a_latent_codec_is_left_alone():
    codec, latents = codec_of(Shuffled()), torch.randn(2, 12, 3, 4)
    before = latents.clone()
    codec.to_images(codec.to_model(latents))
    assert torch.equal(latents, before)


def test_bounds_are_the_whitened_range_of_the_data():
    codec = codec_of(Uneven(), [1.0, 0.0, 2.0], [2.0, 1.0, 0.5], [-3.0, -1.0, 1.0], [5.0, 4.0, 4.0], sigma_data=0.5)
    low, high = codec.bounds
    torch.testing.assert_close(low.flatten(), torch.tensor([-1.0, -0.5, -1.0]))
    torch.testing.assert_close(high.flatten(), torch.tensor([1.0, 2.0, 2.0]))


@pytest.mark.parametrize("codec", [PixelCodec(), codec_of(Shuffled(), low=[-12.0] * 12, high=[12.0] * 12)])
def test_a_denoiser_is_clipped_to_the_bounds_and_comes_no_further_from_the_data(codec):
    x0 = codec.to_model(some_images(2))
    low, high = codec.bounds
    assert bool(((x0 >= low) & (x0 <= high)).all())
    estimate = x0 + 30 * torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    held = clipped(lambda x, level: estimate, *codec.bounds)(x0, CLEAN)
    assert bool(((held >= low) & (held <= high)).all())
    assert ((held - x0).abs() <= (estimate - x0).abs()).all()
    assert not torch.equal(held, estimate)


def test_a_clipped_step_from_pure_noise_with_eps_stays_in_the_range_of_the_latents():
    """Cosine's last timestep divides the error of eps by 5e-5; without bounds the latents are thousands."""
    codec = codec_of(Uneven())
    process = GaussianDiffusion(1000, cosine_schedule)
    denoiser = Denoiser(lambda x, t: 0.9 * x, "eps", process.sigma_data)
    x = torch.randn(2, 3, 3, 4, generator=torch.Generator().manual_seed(0))
    level = process.levels(10)[0]
    low, high = codec.bounds
    assert denoiser(x, level).abs().max() > 1000
    held = clipped(denoiser, *codec.bounds)(x, level)
    assert bool(((held >= low) & (held <= high)).all())


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (torch.zeros(2, 12, 3, 4, dtype=torch.int64), r"torch.int64 \[2, 12, 3, 4\]"),
        (torch.zeros(2, 3, 6, 8), r"torch.float32 \[2, 3, 6, 8\]"),
        (torch.zeros(2, 1, 3, 4), r"torch.float32 \[2, 1, 3, 4\]"),
        (torch.zeros(12, 3, 4), r"torch.float32 \[12, 3, 4\]"),
    ],
)
def test_what_is_neither_an_image_nor_a_latent_is_refused(given, found):
    with pytest.raises(InputError, match=rf"takes images uint8 .* or latents \[B, 12, h, w\], got {found}"):
        codec_of(Shuffled()).to_model(given)


@pytest.mark.parametrize("size", [(6, 7), (5, 8), (1, 1)])
def test_images_that_the_factor_does_not_divide_are_refused(size):
    with pytest.raises(InputError, match=rf"multiples of 2, the autoencoder's factor, got {size[0]} x {size[1]}"):
        codec_of(Shuffled()).shape((3, *size))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"mean": [0.0] * 4}, "has 3 latent channels, their statistics are of 4"),
        ({"high": [0.0]}, "has 3 latent channels, their statistics are of 1"),
        (
            {"deviation": [1.0, 0.0, 1.0]},
            r"channel 1 .* tells no two images apart \(mean -1.5, deviation 0\)",
        ),
        ({"mean": [0.0, 0.0, 1e3], "deviation": [1.0, 1.0, 1e-4]}, r"channel 2 .* \(mean 1000, deviation 0.0001\)"),
        ({"deviation": [1.0, 1.0, math.nan]}, "channel 2"),
        ({"deviation": [math.inf, 1.0, 1.0]}, "channel 0"),
        ({"deviation": [-1.0, 1.0, 1.0]}, "channel 0"),
    ],
)
def test_statistics_that_whiten_nothing_are_refused(changes, match):
    with pytest.raises(InputError, match=match):
        codec_of(Uneven(), **changes)
