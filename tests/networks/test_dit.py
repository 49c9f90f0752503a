"""The DiT's contract and what is known of it exactly: identities, permutations, the other library's numbers."""

import math

import pytest
import torch
from torch import nn

from bytepixels.errors import InputError
from bytepixels.networks import DiT
from bytepixels.networks import dit as module
from bytepixels.networks.dit import Block
from bytepixels.networks.dropout import Dropout
from bytepixels.networks.patches import position_waves, rope_angles, turned, unrotated
from tests.networks.test_unet import awake, batch

POSITIONS = ("rope", "sincos")


def small(**changes):
    arguments = {"channels": 1, "patch": 2, "width": 16, "depth": 2, "heads": 2}
    return DiT(**(arguments | changes))


def loud(network, seed=0):
    """Every parameter random and large enough that a mistake anywhere shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (p.shape[-1] ** -0.5 if p.ndim > 1 else 0.3))
    return network


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("registers", [0, 3])
@pytest.mark.parametrize("size", [(8, 8), (2, 2), (4, 10), (12, 2), (28, 28)])
@pytest.mark.parametrize("channels", [1, 3])
def test_sizes(size, channels, registers, positions):
    network = awake(small(channels=channels, positions=positions, registers=registers)).eval()
    x, t = batch(2, channels, *size)
    out = network(x, t)
    assert out.shape == x.shape
    assert out.isfinite().all()
    torch.testing.assert_close(network(x[:1], t[:1]), out[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("patch", "size"), [(1, (3, 5)), (3, (9, 6)), (4, (4, 8)), (8, (8, 8))])
def test_patches(patch, size):
    network = awake(small(patch=patch)).eval()
    x, t = batch(2, 1, *size)
    assert network(x, t).shape == x.shape
    assert network.first.in_features == patch**2


def test_an_empty_batch():
    assert small(num_classes=2)(torch.zeros(0, 1, 8, 8), torch.zeros(0), torch.zeros(0).long()).shape == (0, 1, 8, 8)


def test_out_channels():
    assert small(out_channels=5)(*batch(2, 1, 8, 8)).shape == (2, 5, 8, 8)


def test_every_image_reads_its_own_pixels_time_and_label():
    network = loud(small(num_classes=3, registers=1)).eval()
    x, t = batch(3, 1, 8, 8)
    label = torch.tensor([0, 1, 2])
    before = network(x, t, label)
    for changed in [
        network(x + torch.tensor([0, 1.0, 0]).view(3, 1, 1, 1), t, label),
        network(x, t + torch.tensor([0, 1, 0]), label),
        network(x, t, torch.tensor([0, 2, 2])),
    ]:
        moved = (changed - before).abs().amax(dim=(1, 2, 3))
        assert moved[1] > 1e-3
        assert moved[0] < 1e-5
        assert moved[2] < 1e-5


def test_every_output_pixel_sees_every_input_pixel():
    network = loud(small()).eval()
    x, t = batch(1, 1, 12, 8)
    corner = x.clone()
    corner[0, 0, 0, 0] += 5
    assert ((network(corner, t) - network(x, t)).abs() > 0).all()


def test_no_label_is_the_null_label():
    network = loud(small(num_classes=3)).eval()
    x, t = batch(2, 1, 8, 8)
    assert network.null_label == 3
    assert torch.equal(network(x, t), network(x, t, torch.tensor([3, 3])))
    assert not torch.equal(network(x, t), network(x, t, torch.tensor([0, 3])))
    assert small().null_label is None


def test_time_scale_and_embedding_reach_the_time():
    x, t = batch(2, 1, 8, 8)
    one, scaled, other = (loud(small(**kind)).eval() for kind in ({}, {"time_scale": 1000.0}, {"embedding": "ddpm"}))
    torch.testing.assert_close(scaled(x, t / 1000), one(x, t), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(other(x, t), one(x, t), atol=1e-2)


# ---- what a fresh network is


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_fresh_network_returns_zeros_and_its_blocks_are_the_identity(positions):
    network = small(num_classes=2, positions=positions, registers=2, dropout=0.5)
    x, t = batch(2, 1, 8, 8)
    seen = []
    for block in network.blocks:
        block.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0], out)))
    assert not network(x, t, torch.tensor([0, 1])).any()
    assert len(seen) == 2
    for tokens, out in seen:
        assert tokens.shape == (2, 16 + 2, 16)
        assert tokens.std() > 0.1
        assert torch.equal(tokens, out)


def test_a_fresh_network_learns():
    """From the zeros a step of descent must move something, or training never starts."""
    torch.manual_seed(0)
    network = small(width=32)
    x, t = batch(4, 1, 8, 8)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = (network(x, t) - x.flip(3)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.parametrize("positions", POSITIONS)
def test_gradients_reach_every_parameter(positions):
    network = loud(small(num_classes=2, registers=2, positions=positions))
    x, t = batch(3, 1, 8, 8)
    network(x, t, torch.tensor([0, 1, 2])).square().sum().backward()
    for name, p in network.named_parameters():
        rows = p.grad if name == "label.weight" else p.grad[None]
        assert all(row.abs().max() > 1e-9 for row in rows), name


# ---- positions


def shuffled(x, order, patch=2):
    """The image with its patches in another order, by rows of the grid."""
    height, width = (side // patch for side in x.shape[2:])
    cut = x.unflatten(3, (width, patch)).unflatten(2, (height, patch))  # [B, C, h, p, w, p]
    cut = cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)[:, order]  # [B, N, C, p, p]
    return cut.unflatten(1, (height, width)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("registers", [0, 2])
def test_only_positions_know_where_a_patch_is(positions, registers, monkeypatch):
    network = loud(small(positions=positions, registers=registers)).double().eval()
    x, t = batch(2, 1, 6, 8)
    x, order = x.double(), torch.randperm(12, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(network(shuffled(x, order), t), shuffled(network(x, t), order), atol=1e-3)
    nowhere = lambda height, width, columns, like: torch.zeros(height * width, columns, dtype=like.dtype)  # noqa: E731
    unmoved = lambda *where: (1 + nowhere(*where), nowhere(*where))  # noqa: E731
    monkeypatch.setattr(module, "position_waves", nowhere)
    monkeypatch.setattr(module, "rope_angles", unmoved)
    torch.testing.assert_close(network(shuffled(x, order), t), shuffled(network(x, t), order), rtol=1e-9, atol=1e-9)


def test_turned_queries_and_keys_know_their_distance_alone():
    """Scores of two patches depend on how far apart they are in rows and columns, not on where they are."""
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64, generator=generator)
    cos, sin = rope_angles(7, 9, 16, query)
    everywhere = [turned(one.expand(1, 63, 1, 16), cos, sin)[0, :, 0].unflatten(0, (7, 9)) for one in (query, key)]

    def score(row, column, other_row, other_column):
        return float(everywhere[0][row, column] @ everywhere[1][other_row, other_column])

    for rows, columns in [(0, 0), (3, 0), (0, 4), (2, 5), (-3, 1)]:
        scores = [
            score(r, c, r + rows, c + columns)
            for r in range(max(0, -rows), 7 - max(0, rows))
            for c in range(9 - columns)
        ]
        assert max(scores) - min(scores) < 1e-12
        assert rows == columns == 0 or abs(scores[0] - float(query.flatten() @ key.flatten())) > 1e-2
    assert abs(score(0, 0, 1, 0) - score(0, 0, 0, 1)) > 1e-2  # rows are not columns


def test_the_angles_by_hand():
    """Pair i of the first half belongs to the column, of the second to the row; 100^(-i / 3) radians a patch."""
    x = torch.randn(1, 6, 1, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = turned(x, *rope_angles(2, 3, 12, x))
    for token in range(6):
        row, column = divmod(token, 3)
        for pair in range(6):
            angle = (column if pair < 3 else row) * 100 ** -(pair % 3 / 3)
            expected = complex(*x[0, token, 0, [pair, pair + 6]]) * complex(math.cos(angle), math.sin(angle))
            assert complex(*got[0, token, 0, [pair, pair + 6]]) == pytest.approx(expected, abs=1e-12)


def test_registers_are_not_turned():
    x = torch.randn(2, 6 + 2, 3, 8)
    got = turned(x, *unrotated(*rope_angles(2, 3, 8, x), 2))
    assert torch.equal(got[:, 6:], x[:, 6:])
    assert not torch.allclose(got[:, 1:6], x[:, 1:6], atol=1e-3)


def test_registers_of_a_network_are_not_turned():
    network, seen = small(registers=2), []
    network.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    network(*batch(1, 1, 4, 6))
    (turns,) = seen
    for whole, some, still in zip(turns, rope_angles(2, 3, 8, torch.zeros(1)), (1, 0), strict=True):
        assert torch.equal(whole[:6], some)
        assert (whole[6:] == still).all()
        assert len(whole) == 8


def test_registers_change_the_rest_and_are_left_out():
    network = loud(small(registers=2)).eval()
    x, t = batch(2, 1, 8, 8)
    before = network(x, t)
    with torch.no_grad():
        network.registers[1] *= -1
    assert (network(x, t) - before).abs().max() > 1e-3
    assert network(x, t).shape == x.shape


# ---- against others


def plain_block(block, x, condition):
    """One block of the paper, written out for one image: x [N, D], condition [D]; no positions."""
    m = block.modulation(condition).chunk(6)

    def norm(h, shift, scale):
        h = h - h.mean(dim=1, keepdim=True)
        return h / (h.square().mean(dim=1, keepdim=True) + 1e-6).sqrt() * (1 + scale) + shift

    q, k, v = block.qkv(norm(x, m[0], m[1])).chunk(3, dim=1)
    size, heads = x.shape[1] // block.heads, []
    for head in range(block.heads):
        own = slice(head * size, (head + 1) * size)
        heads.append(torch.softmax(q[:, own] @ k[:, own].T / size**0.5, dim=1) @ v[:, own])
    x = x + m[2] * block.project(torch.cat(heads, dim=1))
    hidden = block.mlp[0](norm(x, m[3], m[4]))
    hidden = hidden / 2 * (1 + torch.tanh((2 / math.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)))
    return x + m[5] * block.mlp[2](hidden)


def test_a_block_is_the_papers():
    block = loud(Block(24, heads=3)).double()
    x, condition = torch.randn(2, 5, 24, dtype=torch.float64), torch.randn(2, 24, dtype=torch.float64)
    expected = torch.stack([plain_block(block, *one) for one in zip(x, condition, strict=True)])
    torch.testing.assert_close(block(x, condition), expected, rtol=1e-10, atol=1e-10)


def reference_dit(side, patch, channels, heads, depth):
    """diffusers' DiT with every parameter random, in float64."""
    import diffusers  # a test dependency: without it these tests must fail, not vanish

    network = diffusers.DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=8,
        in_channels=channels,
        out_channels=2 * channels,
        num_layers=depth,
        sample_size=side,
        patch_size=patch,
        num_embeds_ada_norm=5,
        norm_eps=1e-6,  # as in the paper's own code; theirs is 1e-5 before the MLP
    )
    return loud(network).double().eval()


def take_over(ours, theirs):
    """Copy their weights; patches are (row, column, channel) there, (channel, row, column) here."""

    def copy(layer, *others, rows=None, columns=None):
        for name in ("weight", "bias"):
            value = torch.cat([getattr(other, name).detach() for other in others])
            value = value if rows is None else value[rows]
            value = value[:, columns] if columns is not None and name == "weight" else value
            getattr(layer, name).data.copy_(value.reshape(getattr(layer, name).shape))

    blocks, halves = theirs.transformer_blocks, torch.arange(256).roll(128)  # cosines first there
    embedder = blocks[0].norm1.emb
    copy(ours.first, theirs.pos_embed.proj)
    copy(ours.time[0], embedder.timestep_embedder.linear_1, columns=halves)
    copy(ours.time[2], embedder.timestep_embedder.linear_2)
    ours.label.weight.data.copy_(embedder.class_embedder.embedding_table.weight)
    for block, other in zip(ours.blocks, blocks, strict=True):
        for name, value in other.norm1.emb.state_dict().items():  # there every block embeds the time anew
            value.copy_(embedder.state_dict()[name])
        copy(block.modulation, other.norm1.linear)
        copy(block.qkv, other.attn1.to_q, other.attn1.to_k, other.attn1.to_v)
        copy(block.project, other.attn1.to_out[0])
        copy(block.mlp[0], other.ff.net[0].proj)
        copy(block.mlp[2], other.ff.net[2])
    copy(ours.modulation, theirs.proj_out_1)
    order = torch.arange(theirs.proj_out_2.out_features).unflatten(0, (ours.patch, ours.patch, -1))
    copy(ours.last, theirs.proj_out_2, rows=order.permute(2, 0, 1).flatten())


@pytest.mark.parametrize(("side", "patch", "channels", "heads"), [(8, 2, 3, 2), (16, 4, 1, 3), (6, 1, 4, 1)])
def test_same_function_as_diffusers(side, patch, channels, heads):
    theirs = reference_dit(side, patch, channels, heads, depth=3)
    ours = DiT(
        channels, patch, 8 * heads, 3, heads, "sincos", num_classes=5, embedding="ddpm", out_channels=2 * channels
    )
    ours = ours.double().eval()
    take_over(ours, theirs)
    x = torch.randn(3, channels, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    t, label = torch.tensor([3, 871, 0]), torch.tensor([0, 4, 5])
    with torch.no_grad():
        expected = theirs(x, t, label).sample
        error = (ours(x, t, label) - expected).abs().max() / expected.abs().max()
    assert expected.std() > 0.1
    assert error < 1e-6  # times and their places are in float32


def test_waves_of_a_grid_that_is_not_square():
    waves = position_waves(2, 3, 8, torch.zeros(1, dtype=torch.float64))
    for token in range(6):
        row, column = divmod(token, 3)
        expected = [
            f(place / 10000 ** (i / 2)) for place in (column, row) for f in (math.sin, math.cos) for i in (0, 1)
        ]
        torch.testing.assert_close(waves[token], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_default_is_dit_s_2():
    """DiT-S of Peebles & Xie 2023, table 1: 12 layers, width 384, 6 heads; 33M parameters, their untrained positions
    of 16 x 16 patches among them, for latents of 4 channels, 1,000 classes and a learned variance."""
    with torch.device("meta"):
        network = DiT(channels=4, num_classes=1000, out_channels=8)
    blocks = 12 * (18 * 384**2 + 15 * 384)
    ends = 17 * 384 + (256 + 1 + 384 + 1) * 384 + 1001 * 384 + 385 * 2 * 384 + 385 * 32
    assert sum(p.numel() for p in network.parameters()) == blocks + ends
    assert round((blocks + ends + 256 * 384) / 1e6) == 33
    assert (len(network.blocks), network.blocks[0].heads, network.patch) == (12, 6, 2)


# ---- what training needs of it


def test_dropout_is_a_function_of_the_images_keys():
    network, keys = loud(small(dropout=0.5, registers=1)).double(), torch.tensor([5, 99, 7, 0])
    x, t = batch(4, 1, 6, 8)
    x = x.double()
    whole = network(x, t, dropout_keys=keys)
    torch.testing.assert_close(network(x[1:3], t[1:3], dropout_keys=keys[1:3]), whole[1:3], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(network(x, t, dropout_keys=keys + 1), whole)
    assert not torch.equal(network(x, t), network(x, t))
    assert torch.equal(network.eval()(x, t), network(x, t, dropout_keys=keys))
    numbers = [layer.number for layer in network.modules() if isinstance(layer, Dropout)]
    assert numbers == [0, 1, 2, 3]


@pytest.mark.parametrize("gate", [2, 5])
def test_dropout_zeroes_its_share_of_what_a_branch_adds(gate):
    block = loud(Block(32, heads=2, dropout=0.25))
    with torch.no_grad():
        block.modulation.weight.zero_()
        block.modulation.bias.copy_((torch.arange(6) == gate).repeat_interleave(32))  # one gate alone is open
    x = torch.randn(16, 9, 32)
    added = block(x, torch.zeros(16, 32), keys=torch.arange(16)) - x
    assert (added == 0).double().mean().item() == pytest.approx(0.25, abs=0.03)  # 4 standard deviations: 0.026


@pytest.mark.parametrize("registers", [0, 1])
def test_autocast_computes_in_bfloat16_but_keeps_tokens_and_times_exact(registers):
    network = loud(small(num_classes=2, registers=registers)).eval()
    x, t = batch(2, 1, 8, 8)
    embeddings, tokens = [], []
    network.time.register_forward_pre_hook(lambda _, inputs: embeddings.append(inputs[0]))
    network.blocks[1].register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0].dtype))
    expected = network(x, t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(x, t)
    assert out.dtype == x.dtype
    assert torch.equal(*embeddings)
    assert tokens == [torch.float32] * 2
    assert 1e-5 < (out - expected).abs().max() < 0.05 * expected.abs().max()


def test_weights_in_half_precision():
    network = loud(small(num_classes=2, registers=1)).bfloat16().eval()
    x, t = batch(2, 1, 8, 8)
    assert network(x.bfloat16(), t).dtype == torch.bfloat16


@pytest.mark.parametrize("positions", POSITIONS)
def test_one_graph_for_the_compiler(positions):
    network = loud(small(num_classes=2, registers=1, positions=positions)).eval()
    x, t = batch(2, 1, 8, 8)
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    label = torch.tensor([0, 1])
    torch.testing.assert_close(compiled(x, t, label), network(x, t, label))


def test_channels_last_images_give_the_same_numbers():
    network = loud(small(channels=3)).eval()
    x, t = batch(2, 3, 8, 12)
    torch.testing.assert_close(network(x.to(memory_format=torch.channels_last), t), network(x, t))


def test_attention_is_the_fused_one(monkeypatch):
    called = []
    fused = nn.functional.scaled_dot_product_attention

    def seen(*args, **named):
        called.append(1)
        return fused(*args, **named)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", seen)
    small()(*batch(1, 1, 8, 8))
    assert len(called) == 2


# ---- what is refused


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"patch": 0}, "patch must be at least 1, got 0"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"heads": 3}, "heads must divide the width 16, got 3"),
        ({"heads": 8}, "positions rope needs 4, 8, 12, ... channels in a head, got 16 / 8 heads"),
        ({"width": 18, "positions": "sincos"}, "width must be a multiple of 4, got 18"),
        ({"width": 2}, "width must be at least 4, got 2"),
        ({"registers": -1}, "registers must be at least 0, got -1"),
        ({"positions": "rpoe"}, "positions must be one of rope, sincos; got 'rpoe'; did you mean 'rope'?"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"embedding": "artcle"}, "embedding must be one of article, ddpm; got 'artcle'; did you mean 'article'?"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"out_channels": 0}, "out_channels must be at least 1, got 0"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
    ],
)
def test_arguments_that_do_not_fit(changes, sentence):
    with pytest.raises(InputError) as refused:
        small(**changes)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("x", "t", "label", "sentence"),
    [
        ((2, 3, 8, 8), [0, 1], None, r"x must be \[B, 1, H, W\], got \[2, 3, 8, 8\]"),
        ((2, 1, 8, 7), [0, 1], None, "8 x 7 images do not divide into patches of 2 x 2: each side must be a mult"),
        ((2, 1, 8, 8), [0], None, r"t must be \[2\], one time per image, got \[1\]"),
        ((2, 1, 8, 8), [0, 1], [0, 3], "label must be in 0..2, got 3"),
    ],
)
def test_inputs_that_do_not_fit(x, t, label, sentence):
    label = None if label is None else torch.tensor(label)
    with pytest.raises(InputError, match=sentence):
        small(num_classes=2)(torch.zeros(x), torch.tensor(t), label)
