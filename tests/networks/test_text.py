"""Networks that read a text: what they see of it, what stands for no text, and that nothing else changed."""

import pytest
import torch
from torch.nn import functional as F

from bytepixels import DiT, UNet
from bytepixels.errors import InputError
from bytepixels.networks.blocks import CrossAttention
from bytepixels.networks.text_conditioning import TextReader

SMALL = {"channels": 1, "width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "dropout": 0.0}
PATCHES = {"channels": 1, "width": 8, "patch": 2, "depth": 2, "heads": 1, "positions": "sincos", "registers": 1}
NETWORKS = {"unet": (UNet, SMALL), "dit": (DiT, PATCHES)}
both_networks = pytest.mark.parametrize("kind", NETWORKS)
X = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
T = torch.tensor([1.0, 500.0, 900.0])


def fresh(kind="unet", **options):
    network, small = NETWORKS[kind]
    return network(**small | options).eval()


def built(kind="unet", heads=1, **options):
    """A network whose zeros are zeros no more."""
    torch.manual_seed(0)
    network = fresh(kind, heads=heads, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return network


def a_text(lengths=(2, 3, 1), dim=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(*lengths, 1)) < torch.tensor(lengths)[:, None]
    vectors = torch.randn(len(lengths), mask.shape[1], dim, generator=generator)
    return vectors * mask[..., None], mask


@both_networks
@torch.no_grad()
def test_without_a_text_nothing_is_changed(kind):
    """Not the names of its weights, which old checkpoints know."""
    plain = fresh(kind)
    assert not any("text" in name or "cross" in name for name in plain.state_dict())
    aware = fresh(kind, text_dim=6)
    added = aware.state_dict().keys() - plain.state_dict().keys()
    assert all("text" in name or "cross" in name for name in added)
    assert aware.state_dict().keys() >= plain.state_dict().keys()


@both_networks
@torch.no_grad()
def test_a_fresh_network_does_not_depend_on_the_text(kind):
    torch.manual_seed(0)
    network = fresh(kind, text_dim=6)
    with torch.no_grad():
        network.last.weight.normal_()
    assert torch.equal(network(X, T, text=a_text()), network(X, T))
    assert (network.text(a_text(), 3)[1] == 0).all()  # which the fresh blocks would hide


@both_networks
@torch.no_grad()
@pytest.mark.parametrize("heads", [1, 4])
def test_every_token_counts_and_what_is_masked_does_not(kind, heads):
    network, (vectors, mask) = built(kind, heads, text_dim=6), a_text()
    whole = network(X, T, text=(vectors, mask))
    for row, token in mask.nonzero().tolist():
        changed = vectors.clone()
        changed[row, token, 0] += 1
        difference = (network(X, T, text=(changed, mask)) - whole).abs().amax(dim=(1, 2, 3))
        assert difference[row] > 1e-4
        assert (difference[torch.arange(3) != row] == 0).all()
    noise = vectors + 100 * torch.randn(vectors.shape) * ~mask[..., None]
    torch.testing.assert_close(network(X, T, text=(noise, mask)), whole, rtol=1e-4, atol=1e-5)
    wider = F.pad(vectors, (0, 0, 0, 5)), F.pad(mask, (0, 5))
    torch.testing.assert_close(network(X, T, text=wider), whole, rtol=1e-4, atol=1e-5)


@both_networks
@torch.no_grad()
def test_no_text_is_a_vector_of_its_own(kind):
    network = built(kind, text_dim=6)
    vectors, mask = a_text((2, 0, 0))
    some, none = network(X, T, text=(vectors, mask)), network(X, T)
    torch.testing.assert_close(some[1:], none[1:], rtol=1e-5, atol=1e-6)
    assert (some[0] - none[0]).abs().max() > 1e-3
    network.text.null.add_(1)
    changed = network(X, T, text=(vectors, mask))
    torch.testing.assert_close(changed[0], some[0], rtol=1e-5, atol=1e-6)  # who has a text does not see it
    assert (changed[1] - some[1]).abs().max() > 1e-3


@both_networks
@torch.no_grad()
def test_an_image_is_the_same_in_any_batch(kind):
    network, (vectors, mask) = built(kind, text_dim=6), a_text((2, 3, 0))
    whole = network(X, T, text=(vectors, mask))
    for k in range(3):
        alone = network(X[k : k + 1], T[k : k + 1], text=(vectors[k : k + 1], mask[k : k + 1]))
        torch.testing.assert_close(alone, whole[k : k + 1], rtol=1e-5, atol=1e-6)


@both_networks
@torch.no_grad()
def test_label_and_text_together(kind):
    network, text, label = built(kind, text_dim=6, num_classes=3), a_text(), torch.tensor([0, 1, 2])
    both = network(X, T, label, text=text)
    for other in (network(X, T, text=text), network(X, T, label), network(X, T, label.flip(0), text=text)):
        assert (both - other).abs().max() > 1e-3
    null = network(X, T, torch.full((3,), 3), text=text)
    torch.testing.assert_close(null, network(X, T, text=text), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_every_level_that_attends_reads():
    network = UNet(**SMALL | {"multipliers": (1, 2, 2), "attention": (0, 2)}, text_dim=6)
    reading = [name for name, part in network.named_modules() if isinstance(part, CrossAttention)]
    attending = [name for name in network.state_dict() if name.endswith("attention.qkv.weight")]
    assert [name.removesuffix(".cross") for name in reading] == [n.split(".attention")[0] for n in attending]
    assert len(reading) == 2 * (1 + 2) + 1


@torch.no_grad()
def test_cross_attention_by_hand():
    torch.manual_seed(0)
    layer, (tokens, mask) = CrossAttention(8, 6, heads=2), a_text((2, 3, 1))
    torch.nn.init.normal_(layer.project.weight)
    h = torch.randn(3, 5, 8)
    got = layer(h, tokens, mask)
    for row in range(3):
        seen = tokens[row, mask[row]]
        k, v = F.linear(seen, layer.kv.weight, layer.kv.bias).split(8, dim=1)
        q = F.linear(h[row], layer.q.weight, layer.q.bias)
        parts = []
        for head in (slice(0, 4), slice(4, 8)):
            weights = (q[:, head] @ k[:, head].T / 2).softmax(dim=1)
            parts.append(weights @ v[:, head])
        expected = F.linear(torch.cat(parts, dim=1), layer.project.weight, layer.project.bias)
        torch.testing.assert_close(got[row], expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_mean_is_added_to_the_timestep():
    torch.manual_seed(0)
    reader, (vectors, mask) = TextReader(6, 8), a_text((2, 3, 0))
    torch.nn.init.normal_(reader.pooled.weight)
    (tokens, seen), pooled = reader((vectors, mask), 3)
    assert seen.sum(dim=1).tolist() == [2, 3, 1]
    assert torch.equal(tokens[:, 0], reader.null.expand(3, -1))
    for row, count in enumerate((2, 3)):
        mean = vectors[row, :count].mean(dim=0)
        normed = (mean - mean.mean()) / mean.std(unbiased=False)
        torch.testing.assert_close(pooled[row], reader.pooled(normed), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(pooled[2], reader.pooled(reader.null))


@both_networks
def test_gradients_reach_the_vectors_of_a_trained_text(kind):
    network, (vectors, mask) = built(kind, text_dim=6), a_text((2, 0, 1))
    network(X, T, text=(vectors, mask)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.text.null.grad.abs().max() > 0


@both_networks
def test_refusals(kind):
    network, (vectors, mask) = built(kind, text_dim=6), a_text()
    with pytest.raises(InputError, match=r"text must be vectors \[3, L, 6\] and a mask bool \[3, L\], got \[3, 3, 5\]"):
        network(X, T, text=(vectors[..., :5], mask))
    for broken in ((vectors[:2], mask[:2]), (vectors, mask[:, :2]), (vectors, mask.float()), (vectors[0], mask)):
        with pytest.raises(InputError, match="text must be vectors"):
            network(X, T, text=broken)
    with pytest.raises(InputError, match="text was given to a network without text"):
        built(kind)(X, T, text=(vectors, mask))
    with pytest.raises(InputError, match="text_dim must be at least 1, got 0"):
        fresh(kind, text_dim=0)
