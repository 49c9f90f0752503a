"""A run that reads captions: what it trains on, that prompts say what is drawn, and what is refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from bytepixels.build import build_process
from bytepixels.core.denoiser import Denoiser
from bytepixels.data import pack
from bytepixels.data.batches import Batches
from bytepixels.runs.run_directory import open_run
from bytepixels.sampling.conditioning import text_of
from bytepixels.sampling.settings import build_sampling
from bytepixels.sampling.trained_model import TrainedModel
from bytepixels.text import TextRows, open_text_encoder, store_captions
from bytepixels.training.diffusion_task import build_draw
from tests.data.fixtures import tar_of
from tests.sampling.captioned import COLOURS, colour_images, mean_colour
from tests.text.folders import save_encoder
from tests.tiny import TINY, checkpoints, cli, log_of, pixels_of, plain, read_json, same_bits, tensors, train, words
from tests.training.test_distributed import together

CPU = torch.device("cpu")
LEARN = words("--warmup 0 --lr-decay none --lr 0.01 --width 16 --ema-half-life 300 --text wordllama --steps 5")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return colour_images(tmp_path_factory.mktemp("source") / "in")


@pytest.fixture(scope="module")
def run(source, tmp_path_factory):
    """120 steps: what a caption says is learnt by then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYTEPIXELS_CACHE", str(tmp_path_factory.mktemp("cache")))
        path = tmp_path_factory.mktemp("text") / "run"
        assert train(path, *LEARN, steps=120, source=source) == 0
    return path


def drawn(run, out, *flags):
    assert cli("sample", run, "--out", out, *flags) == 0
    manifest = read_json(out / "manifest.json")
    return [pixels_of(out / one["file"]) for one in manifest["pictures"]], manifest


def farthest(some, others):
    return max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(some, others, strict=True))


# what prompts do


@pytest.mark.parametrize("colour", COLOURS)
def test_the_prompt_decides_the_colour(run, tmp_path, colour):
    """Also a prompt that no image had."""
    for prompt in (f"a {colour} image", colour):
        images, manifest = drawn(run, tmp_path / prompt, "-n", 4, "--prompt", prompt)
        assert mean_colour(images).argmax() == list(COLOURS).index(colour)
        assert np.abs(mean_colour(images) - COLOURS[colour]).max() < 80
        assert [one["prompt"] for one in manifest["pictures"]] == [prompt] * 4


def test_without_a_prompt_the_captions_come_in_turn(run, tmp_path):
    captions = [f"a {colour} image" for colour in COLOURS]
    assert open_run(run).data["text"]["captions"] == captions
    images, manifest = drawn(run, tmp_path / "a", "-n", 4, "--seed", 1)
    assert [one["prompt"] for one in manifest["pictures"]] == [captions[k % 3] for k in range(1, 5)]
    alone, _ = drawn(run, tmp_path / "b", "-n", 1, "--seed", 2, "--prompt", captions[2])
    assert farthest(alone, images[1:2]) <= 1


def test_no_words_are_no_text(run, tmp_path):
    empty, manifest = drawn(run, tmp_path / "a", "-n", 3, "--prompt=")
    assert manifest["pictures"][0]["prompt"] == ""
    unguided, _ = drawn(run, tmp_path / "b", "-n", 3, "--prompt", "red", "--guidance", 0)
    assert farthest(empty, unguided) <= 1  # scale 0 is the estimate without the text
    red, _ = drawn(run, tmp_path / "c", "-n", 3, "--prompt", "red")
    assert farthest(empty, red) > 10


def test_a_prompt_without_words_may_be_typed_as_a_word_of_its_own(run, source, tmp_path, capsys):
    one, _ = drawn(run, tmp_path / "a", "-n", 1, "--prompt=")
    two, _ = drawn(run, tmp_path / "b", "-n", 1, "--prompt", "")
    assert farthest(one, two) == 0
    assert cli("sample", run, "--label", "") == 2
    assert train(tmp_path / "told", *LEARN, "--label-dropout", 0, steps=1, source=source) == 0
    refused(capsys, f"--prompt '' has no words, and {tmp_path / 'told'} was trained with --label-dropout 0",
            "sample", tmp_path / "told", "--prompt", "")  # fmt: skip


def test_what_is_left_out_of_a_long_prompt_is_said_once(run, source, tmp_path, capsys):
    prompt = "red " * 60 + "one two three four five six"
    drawn(run, tmp_path / "a", "-n", 3, "--batch", 1, "--prompt", prompt)
    said = "note: the text encoder reads 64 tokens, of this prompt the first 64 of 66 words; left out: five six\n"
    assert capsys.readouterr().out.count(said) == 1
    assert cli("edit", "vary", run, source / "000.png", "-n", 1, "--prompt", f"{prompt} seven") == 0
    assert "the first 64 of 67 words; left out: five six seven\n" in capsys.readouterr().out
    drawn(run, tmp_path / "b", "-n", 1, "--prompt", "red " * 64)
    assert "note" not in capsys.readouterr().out


@pytest.mark.parametrize("flags", [[], ["--guidance", 3]])
def test_an_image_does_not_depend_on_the_batch(run, tmp_path, flags):
    flags = ["-n", 5, "--prompt", "a blue image", *flags]
    whole, _ = drawn(run, tmp_path / "whole", *flags)
    for batch in (1, 2):
        parts, _ = drawn(run, tmp_path / str(batch), *flags, "--batch", batch)
        assert farthest(parts, whole) <= 1


@torch.no_grad()
def test_guidance_by_a_prompt_is_the_combination_by_hand(run):
    """Two evaluations of the network, one with the text and one with none, from one call of it."""
    opened, seeds = open_run(run), [3, 4]
    config, process = opened.config, build_process(opened.config)
    network = TrainedModel.open(opened, device=CPU).network
    text = text_of(opened, seeds, "green", CPU)
    settings, level = replace(config.sample, guidance=2.5, clip=False), process.levels(10)[4]
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    calls = []
    network.register_forward_pre_hook(lambda module, arguments: calls.append(len(arguments[0])))
    got = build_sampling(network, config, settings, process, None, text=text)[0](x, level)
    assert calls == [4]
    told = Denoiser(lambda x, t: network(x, t, text=text), config.process.prediction)(x, level)
    untold = Denoiser(network, config.process.prediction)(x, level)
    torch.testing.assert_close(got, untold + 2.5 * (told - untold), rtol=1e-4, atol=1e-5)
    assert (told - untold).abs().max() > 0.01


def test_edit_with_a_prompt(run, source, tmp_path):
    """The way from almost pure noise to an image is led by the words; the manifest says which."""
    flags = words("--strength 1 -n 2 --steps 5 --guidance 2")
    assert cli("edit", "vary", run, source / "000.png", *flags, "--prompt", "blue", "--out", tmp_path) == 0
    assert read_json(tmp_path / "manifest.json")["prompt"] == "blue"
    assert mean_colour([pixels_of(tmp_path / f"seed-{k}.png") for k in (0, 1)]).argmax() == 2


def test_folders_are_named_for_prompts(run):
    for prompt in ("a red image", "a red image!", "../../x"):
        assert cli("sample", run, "-n", 1, "--prompt", prompt) == 0
    names = {path.name for path in (run / "samples").iterdir() if path.is_dir()}
    assert len([name for name in names if "a-red-image" in name]) == 2
    assert all((run / "samples" / name / "manifest.json").is_file() for name in names)


# how it is trained


def test_the_source_says_how_many_captions_it_has(source, tmp_path, capsys):
    assert train(tmp_path / "run", *LEARN, steps=1, source=source) == 0
    said = plain(capsys.readouterr().out)
    assert "48 captions from metadata.csv." in said
    assert "horizontal flips off; captions" in said


def test_captions_that_are_not_used_are_pointed_out(source, tmp_path, capsys):
    """Also beside classes, of shards: where a new run would read them with --text."""
    samples = {}
    for k in range(6):
        samples |= {
            f"{k}.png": (source / f"{k:03}.png").read_bytes(),
            f"{k}.cls": str(k % 2).encode(),
            f"{k}.txt": b"red",
        }
    shards = tar_of(tmp_path / "shards.tar.gz", samples)
    note = "note: The captions are not used; --text wordllama trains on them too\n"
    for each, run in ((source, tmp_path / "one"), (shards, tmp_path / "two")):
        capsys.readouterr()
        assert train(run, steps=1, source=each) == 0
        assert note in capsys.readouterr().out
        assert train(run, steps=2, source=each) == 0
        assert note not in capsys.readouterr().out
    assert train(tmp_path / "three", *LEARN, steps=1, source=shards) == 0
    bare = colour_images(tmp_path / "bare", 6, captions=False)
    assert train(tmp_path / "four", steps=1, source=bare) == 0
    assert note not in capsys.readouterr().out


def test_a_resumed_run_is_bitwise_the_run_that_never_stopped(source, tmp_path):
    flags = [*LEARN, "--dropout", 0.1]
    assert train(tmp_path / "whole", *flags, steps=4, source=source) == 0
    assert train(tmp_path / "parts", *flags, steps=2, source=source) == 0
    assert cli("train", source, "--images", 128, "--run", tmp_path / "parts") == 0
    assert same_bits(checkpoints(tmp_path / "whole")[-1], checkpoints(tmp_path / "parts")[-1]) == []


def test_smaller_parts_of_a_batch_train_the_same(source, tmp_path):
    assert train(tmp_path / "whole", *LEARN, steps=2, source=source) == 0
    assert train(tmp_path / "parts", *LEARN, "--micro-batch", 16, steps=2, source=source) == 0
    whole, parts = (checkpoints(tmp_path / name)[-1] for name in ("whole", "parts"))
    for name, value in tensors(whole).items():
        if name.startswith("model"):
            torch.testing.assert_close(tensors(parts)[name], value, rtol=1e-2, atol=1e-3)


def test_a_step_has_the_captions_of_its_images_and_forgets_some(source, run, tmp_path):
    """A tenth, each by (seed, step, place); the rows of a process are those of the whole batch."""
    packed, config = pack(source, cache=tmp_path), open_run(run).config
    texts = TextRows(store_captions(packed.captions, open_text_encoder("wordllama"), tmp_path))

    def drawing(rows=None, dropout=0.1):
        changed = replace(config, train=replace(config.train, label_dropout=dropout))
        batches = Batches(packed.images, None, 32, config.train.seed, rows=rows)
        return batches, build_draw(changed, build_process(config), batches, 0, texts=texts)

    batches, draw = drawing()
    forgotten = 0
    for step in range(40):
        vectors, mask = draw(step)[6:]
        wanted, known = texts(batches.indices(step))
        assert torch.equal(vectors, wanted)
        assert (mask == known).all(dim=1).logical_or(~mask.any(dim=1)).all()
        forgotten += int((~mask.any(dim=1)).sum())
        part = drawing(slice(8, 20))[1](step)
        assert torch.equal(part[6], vectors[8:20])
        assert torch.equal(part[7], mask[8:20])
    assert 90 < forgotten < 170  # of 1280
    assert drawing(dropout=0.0)[1](3)[7].any(dim=1).all()
    assert not drawing(dropout=1.0)[1](3)[7].any()
    plain_draw = build_draw(config, build_process(config), batches, 0)
    for one, other in zip(plain_draw(5), draw(5), strict=False):
        assert (one is None and other is None) or torch.equal(one, other)  # the other draws are what they were


def test_previews_show_captions_of_the_training_set(source, tmp_path):
    run = tmp_path / "run"
    assert train(run, *LEARN, *words("--previews 1 --preview-images 4"), steps=1, source=source) == 0
    assert (run / "samples/images-000000032.png").is_file()


def test_labels_and_text_together(tmp_path):
    for name in ("dark", "light"):
        colour_images(tmp_path / name, 6)
    (tmp_path / "in").mkdir()
    for name in ("dark", "light"):
        shutil.move(tmp_path / name, tmp_path / "in" / name)
    run = tmp_path / "run"
    assert train(run, *LEARN, steps=2, source=tmp_path / "in") == 0
    assert open_run(run).classes == ["dark", "light"]
    _, manifest = drawn(run, tmp_path / "a", "-n", 2, "--prompt", "red", "--guidance", 2)
    assert [one.keys() for one in manifest["pictures"]] == [{"file", "seed", "prompt"}] * 2
    _, manifest = drawn(run, tmp_path / "b", "-n", 2, "--prompt", "red", "--label", "dark", "--guidance", 2)
    assert manifest["pictures"][1] == {"file": "seed-1.png", "seed": 1, "label": "dark", "prompt": "red"}


def test_an_encoder_in_a_folder_end_to_end(source, tmp_path, monkeypatch, capsys):
    """Named by a relative path, it is found from anywhere; moved, it may be named anew; gone, a sentence says so."""
    save_encoder(tmp_path / "encoder")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    assert train(run, *LEARN, "--text", "encoder", steps=2, source=source) == 0
    monkeypatch.chdir("/")
    drawn(run, tmp_path / "out", "-n", 2, "--prompt", "red apple")
    shutil.move(tmp_path / "encoder", tmp_path / "moved")
    capsys.readouterr()
    assert cli("sample", run, "-n", 1, "--out", tmp_path / "none") == 2
    said = capsys.readouterr().err.strip()
    assert f"{run} was trained with the text encoder {tmp_path / 'encoder'}: " in said
    assert "is neither wordllama nor a folder" in said
    assert "\n" not in said
    assert not (tmp_path / "none").exists()
    assert cli("train", source, "--run", run, "--images", 96, "--text", tmp_path / "moved") == 0
    settings = tmp_path / "moved/config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"layer_norm_eps": 0.1}))
    assert cli("sample", run, "-n", 1) == 2
    assert "was trained with another text encoder than" in capsys.readouterr().err
    assert cli("train", source, "--run", run, "--images", 128) == 2
    assert "was begun with another text encoder; choose another --run" in capsys.readouterr().err


# refusals


def refused(capsys, match, *line):
    capsys.readouterr()
    assert cli(*line) == 2
    *before, said = capsys.readouterr().err.strip().split("\n")
    assert match in said
    assert all(line.startswith(("pack  ", "headers  ")) for line in before)


def test_refusals(run, source, tmp_path, capsys):
    bare = colour_images(tmp_path / "bare", 6, captions=False)
    refused(capsys, f"--text wordllama needs captions, and {bare} has none: a metadata.csv with the columns file_name",
            "train", bare, *LEARN, "--images", 32, "--run", tmp_path / "x")  # fmt: skip
    refused(capsys, "--text word2vec is neither wordllama nor a folder",
            "train", source, "--text", "word2vec", "--images", 32, "--run", tmp_path / "x")  # fmt: skip
    assert not (tmp_path / "x").exists()
    assert train(tmp_path / "plain", "--ema-half-life", 100, steps=1, source=source) == 0
    refused(capsys, "--prompt 'red'", "sample", tmp_path / "plain", "--prompt", "red")
    refused(capsys, "was trained without text (train --text)", "sample", tmp_path / "plain", "--prompt", "red")
    refused(capsys, "was begun without --text", "train", source, "--run", tmp_path / "plain", "--text", "wordllama")
    refused(capsys, "needs class labels, and this run has none", "sample", tmp_path / "plain", "--guidance", 2)
    other = colour_images(tmp_path / "other")
    (other / "metadata.csv").write_text("file_name,text\n000.png,something else\n")
    refused(capsys, "was begun with other captions", "train", other, "--run", run)
    refused(capsys, "needs a --label or --prompt to guide towards",
            "edit", "vary", run, source / "000.png", "--guidance", 2)  # fmt: skip


def test_without_the_extra(run, source, tmp_path, monkeypatch, capsys):
    from bytepixels.text import encoders

    find = encoders.find_spec
    monkeypatch.setattr(encoders, "find_spec", lambda name: None if name == "wordllama" else find(name))
    wanted = "needs packages that are not installed: pip install 'bytepixels[text]'"
    refused(capsys, wanted, "train", source, *LEARN, "--images", 32, "--run", tmp_path / "x")
    from bytepixels.sampling import conditioning as texts

    texts._encoded.cache_clear()
    refused(capsys, wanted, "sample", run, "--prompt", "red")


# what measures it


def test_samples_are_measured_with_captions_of_the_training_set(run, source, tmp_path, monkeypatch):
    """Of images drawn at random, whatever the batch."""
    told, draw = [], TrainedModel.draw
    monkeypatch.setattr(TrainedModel, "draw", lambda *given: told.append(given[4]) or draw(*given))
    for batch in (7, 40):
        assert cli("evaluate", run, "--source", source, "-n", 40, "--batch", batch, "--device", "cpu") == 0
    parts, whole = told[:-1], told[-1]
    assert torch.equal(torch.cat([vectors for vectors, _ in parts]), whole[0])
    assert len({vectors.numpy().tobytes() for vectors in whole[0]}) == 3


def test_a_source_that_lost_its_captions(run, source, tmp_path, capsys):
    bare = colour_images(tmp_path / "bare", captions=False)
    refused(capsys, f"was trained on captions, and {bare} has none now",
            "evaluate", run, "--source", bare, "-n", 40)  # fmt: skip


@pytest.mark.slow
def test_two_processes_train_what_one_does(source, tmp_path):
    flags = [*LEARN, "--previews", 1, "--preview-images", 3]
    assert train(tmp_path / "one", *flags, steps=6, source=source) == 0
    line = ("train", source, *TINY, *flags, "--images", 6 * 32, "--run", tmp_path / "two")
    together(2, *line)
    losses = [[line["loss"] for line in log_of(tmp_path / name)] for name in ("one", "two")]
    np.testing.assert_allclose(*losses, rtol=1e-3)
    previews = [pixels_of(tmp_path / name / "samples/images-000000192.png") for name in ("one", "two")]
    assert farthest(*([one] for one in previews)) <= 3
