"""data doctor from the command line: the page, its numbers, what it suggests against what train then does."""

import json
import math
import shlex
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bytepixels.config.data import DataConfig
from bytepixels.config.presets import PRESETS, digits
from bytepixels.data import Packed, pack
from bytepixels.data.inspection.statistics import Leak
from bytepixels.data.sources.decode import ImageHeader
from bytepixels.requests.check_data import Doctor
from bytepixels.training.autotune import preflight as verb
from bytepixels.training.autotune import trial as doctortrial
from bytepixels.training.autotune.preflight_advice import (
    TrainingPlan,
    find_problems,
    suggested_command,
    suits_a_gpu,
    with_budget,
)
from bytepixels.training.autotune.preflight_training import budget_sentence
from bytepixels.training.autotune.trial import estimate_step, measure_step, overfit, with_batch
from bytepixels.training.defaults import choose, own_size
from bytepixels.training.forecast import in_words
from bytepixels.training.micro_batch import kept_bytes
from tests.data.fixtures import colours, write, write_all
from tests.tiny import cli, plain, read_json, snapshot

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TIMED = {"seconds", "seconds_per_image", "free_bytes"}


def nan(text):
    raise AssertionError(f"{text} is no JSON")


def doctor(source, *flags, out):
    """The numbers that one call leaves."""
    assert cli("data", "doctor", source, *flags, "--json", out) == 0
    return json.loads(out.read_text(), parse_constant=nan)


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMED}
    return value


def glance(height, width=None, grey=False):
    return ImageHeader(height, width or height, grey, "PNG RGB", False, False)


def sample_of(images, labels=None, classes=()):
    return Packed(images, labels, classes, {}, None, ())


def noise_sample(n=4, size=8, channels=1):
    return sample_of(colours(n, size, size).transpose(0, 3, 1, 2)[:, :channels])


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    """Where the check that it learns is not what a test is about, a second of it is enough."""
    monkeypatch.setattr(verb, "QUICK_SECONDS", 1.0)


@pytest.fixture(scope="module")
def of_digits():
    """What there is to say of the digits, with as much time as the check takes; and what was shown on the way."""
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verb, "QUICK_SECONDS", 60.0)
        return verb.doctor(Doctor("digits", quick=True), lambda *parts: shown.append(parts)), shown


def test_the_digits(of_digits, capsys):
    found, shown = of_digits
    data, plan = found.data, found.plan
    assert shown == [(data,), (data, plan)]
    assert capsys.readouterr().out == ""
    assert (data.source, data.split, data.images, data.median, data.packed_size) == (
        "digits",
        "train",
        1797,
        (8, 8),
        (8, 8),
    )
    assert data.classes["8"] == min(data.classes.values()) == 174
    assert plan.command == "bytepixels train digits"
    settings = plan.config.data
    assert (plan.config.preset, settings.flip, settings.size, settings.channels) == ("digits", "no", (8, 8), 1)
    assert plan.config.network.labels
    assert data.copies.variants
    assert data.copies.exact == []
    assert found.measured is None
    assert found.overfit.learns is True
    assert found.overfit.loss_share <= 0.1
    from sklearn.datasets import load_digits

    values = np.round(load_digits().images * (255 / 16))
    assert data.pixels.mean == [pytest.approx(values.mean())]
    assert data.pixels.std == [pytest.approx(values.std())]


def test_the_same_again_but_for_the_times_and_in_json(of_digits, tmp_path, monkeypatch):
    monkeypatch.setattr(verb, "QUICK_SECONDS", 60.0)
    again = doctor("digits", "--quick", out=tmp_path / "again.json")
    assert without_times(again) == without_times(json.loads(json.dumps(asdict(of_digits[0]))))


def test_it_measures_the_real_step_and_the_size_of_a_checkpoint(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(doctortrial, "MEASURE_STEPS", 3)
    found = doctor("digits", out=tmp_path / "found.json")
    measured, said = found["measured"], capsys.readouterr().out
    assert measured["measured_batch"] == found["plan"]["config"]["train"]["batch"] == 64
    assert len(measured["seconds"]) == 2
    assert all(seconds > 0 for seconds in measured["seconds"])
    step = sum(measured["seconds"]) / 2
    assert measured["images_per_second"] == pytest.approx(64 / step)
    assert found["plan"]["config"]["train"]["precision"] in ("float32", "bf16")
    assert measured["peak_memory_bytes"] > 50e6  # torch alone takes more
    run = tmp_path / "run"
    assert cli("train", "digits", "--preset", "digits", "--images", 64, "--previews", 0, "--run", run) == 0
    (checkpoint,) = (run / "checkpoints").iterdir()
    size = sum(file.stat().st_size for file in checkpoint.iterdir())
    assert found["step"]["checkpoint_bytes"] == pytest.approx(size, rel=0.02)
    assert found["packed_bytes"] == 1797 * 64
    assert all(title in said for title in ("Files", "Copies", "Classes", "What train will do", "On this machine (cpu)"))
    assert f"{step:.3g} s (" in said
    assert "in 2 steps of 64 images; " in said
    assert f"): {measured['images_per_second']:,.3g} images/s" in plain(said)
    assert f"About {in_words(938 * step)} for 60,032 images at" in plain(said)  # 938 steps


@pytest.fixture
def folder(tmp_path):
    """Two classes, other sizes, one of everything that train changes or leaves out."""
    root = tmp_path / "my images"
    images = write_all(root, [f"a/{k}.png" for k in range(6)] + [f"b/{k}.png" for k in range(5)], height=14, width=14)
    write(root / "a" / "wide.png", colours(1, 12, 20, seed=1)[0])
    write(root / "b" / "same.bmp", images["a/0.png"])
    clear = np.zeros((14, 14, 4), np.uint8)
    clear[3:9, 3:9] = 255
    write(root / "b" / "clear.png", clear)
    (root / "b" / "text.png").write_text("no image")
    return root


def test_train_does_what_was_said(folder, tmp_path, capsys):
    found = doctor(folder, "--quick", "--background", "black", out=tmp_path / "found.json")
    page = plain(capsys.readouterr().out)
    words = shlex.split(found["plan"]["command"])
    assert words[:3] == ["bytepixels", "train", str(folder)]
    run = tmp_path / "run"
    assert cli(*words[1:], "--images", 32, "--batch", 8, "--previews", 0, "--run", run) == 0
    config, said = read_json(run / "config.json"), capsys.readouterr().out
    data, plan = found["data"], found["plan"]["config"]
    assert config["data"]["count"] == data["images"] == 14
    assert config["data"]["classes"] == list(data["classes"]) == ["a", "b"]
    assert config["config"]["data"] == plan["data"]
    assert config["config"]["preset"] == plan["preset"] == "digits"
    assert plan["data"]["size"] == data["packed_size"] == [14, 14]
    counts = ("1 of 14 images have transparent", "2 of 14", "Skipped 1 of 15 files: b/text.png")
    assert all(count in said for count in counts[::2])
    assert (data["counts"]["composed"], data["counts"]["reshaped"], len(data["unreadable"])) == (1, 1, 1)
    for sentence in (
        "train takes 14 images (split train) and skips 1 file that it cannot read.",
        "Each becomes 14 x 14, red + green + blue.",
        "Among them, of another shape, cropped to their centre: 1; with transparent parts, composed on black: 1.",
        "No flips. Learnt with 2 class labels, which 10% of the images go without.",
    ):
        assert sentence in page


def test_what_is_worth_doing_first(folder, tmp_path, capsys):
    found = doctor(folder, "--quick", out=tmp_path / "found.json")
    said = plain(capsys.readouterr().out)
    first = [one["advice"] for one in found["findings"]]
    assert first[0] == "Repair or delete 1 file that cannot be read: train leaves out what it cannot read."
    assert first[1] == "Choose a class for the copies that lie in several: 1 group of them."
    assert first[2].startswith("Look at 1 exact copy and delete")
    assert first[3].startswith("Look at 1 image of one colour")
    assert first[4].startswith("Add images to the 14 there are: below 500")
    assert [sentence in said for sentence in first] == [True] * 5 + [False] * (len(first) - 5)
    assert [(one["kind"], one["count"]) for one in found["findings"][:3]] == [
        ("unreadable", 1),
        ("copies_across_classes", 1),
        ("exact_copies", 1),
    ]
    assert "b/text.png: not an image that Pillow can read" in said
    assert "a/0.png = b/same.bmp" in said


def test_it_changes_and_leaves_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("BYTEPIXELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path)
    assert cli("data", "doctor", folder, "--quick") == 0
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "cache").exists()


def test_test_images_that_are_in_train_are_found(tmp_path):
    images = colours(8, 16, 16)
    np.savez(tmp_path / "set.npz", images_train=images[:6], images_test=images[4:])
    found = doctor(tmp_path / "set.npz", "--quick", out=tmp_path / "found.json")
    assert len(found["data"]["copies"]["across_splits"]["test"]["exact"]) == 2
    assert "Take out 2 images of test that are in the split" in found["findings"][0]["advice"]
    other = doctor(tmp_path / "set.npz", "--quick", "--split", "test", out=tmp_path / "found.json")
    assert other["data"]["images"] == 4
    assert len(other["data"]["copies"]["across_splits"]["train"]["exact"]) == 2
    assert "--split test" in other["plan"]["command"]


def test_one_image(tmp_path, capsys):
    write(tmp_path / "one.png", colours(1, 12, 12)[0])
    found = doctor(tmp_path / "one.png", "--quick", out=tmp_path / "found.json")
    assert found["data"]["images"] == found["overfit"]["images"] == 1
    first = found["findings"][0]["advice"]
    assert first.startswith("Add images to the 1 there is: below 500")
    assert plain(first) in plain(capsys.readouterr().out)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_images_of_next_to_nothing(tmp_path, height, width):
    write(tmp_path / "set" / "0.png", colours(1, height, width)[0])
    found = doctor(tmp_path / "set", "--quick", out=tmp_path / "found.json")
    assert found["data"]["packed_size"] == ([2, 2] if height == width == 2 else [8, 8])
    run = tmp_path / "run"
    words = shlex.split(found["plan"]["command"])[1:]
    assert cli(*words, "--images", 1, "--batch", 1, "--previews", 0, "--run", run) == 0


REFUSED = {
    "nothing there": (["nowhere"], "is no file, no folder and no known data set"),
    "no source": ([], "SOURCE"),
    "background": (["digits", "--background", "nocolour"], "background must be a CSS colour"),
    "split": (["digits", "--split", "tset"], "did you mean 'test'?"),
    "no such split": (["digits", "--split", "test"], "digits has no test split"),
    "preset": (["digits", "--preset", "digts"], "did you mean 'digits'?"),
    "size": (["digits", "--size", 0, 8], "--size height must be in 1..4096, got 0"),
    "size for the network": (["digits", "--size", 1, 8], "1 x 8 images are too small for 2 levels"),
    "channels": (["digits", "--channels", 5], "--channels must be in 1..4, got 5"),
    "device": (["digits", "--device", "nonsense"], "--device nonsense is not on this machine"),
    "a typo": (["digits", "--quik"], "did you mean --quick?"),
    "json is a folder": (["digits", "--json", "."], "--json . is a folder, not a file"),
}


@pytest.mark.parametrize(("words", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_it_refuses(words, sentence, capsys):
    assert cli("data", "doctor", *words) == 2
    said = capsys.readouterr()
    assert sentence in plain(said.err)
    assert "Traceback" not in said.err


def test_sources_without_an_image_are_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.png").write_text("not an image")
    for name, sentence in (("empty", "holds no image: it is empty"), ("text", "holds no readable image among 1")):
        assert cli("data", "doctor", tmp_path / name, "--json", tmp_path / "found.json") == 2
        assert sentence in plain(capsys.readouterr().err)
    assert not (tmp_path / "found.json").exists()


def test_the_word_after_data(capsys):
    assert cli("data") == 0
    assert "  data doctor SOURCE" in capsys.readouterr().out
    assert cli("data", "docter") == 2
    assert "did you mean 'doctor'?" in capsys.readouterr().err


CHOICES = {
    "digits": ([glance(8)] * 5, CPU, "digits", (8, 8)),
    "16 x 16": ([glance(16)] * 5, CPU, "digits", (16, 16)),
    "28 x 28": ([glance(28)] * 5, CPU, "small", (28, 28)),
    "many of 28 x 28 on a GPU": ([glance(28)] * 10_000, CUDA, "small", (28, 28)),
    "photographs": ([glance(3000, 4000)] * 5, CPU, "small", (32, 32)),
    "photographs on a GPU": ([glance(3000, 4000)] * 5, CUDA, "small", (64, 64)),
    "many on a GPU": ([glance(32)] * 10_000, CUDA, "small", (32, 32)),
    "mixed": ([glance(20), glance(40, 60), glance(24, 90)], CPU, "small", (24, 24)),
    "a strip": ([glance(20, 50)] * 3, CPU, "small", (20, 48)),
    "a side that does not halve twice": ([glance(30)] * 3, CPU, "small", (28, 28)),
    "a banner": ([glance(20, 400)] * 3, CPU, "small", (20, 20)),
}


@pytest.mark.parametrize(("seen", "device", "preset", "size"), CHOICES.values(), ids=CHOICES)
def test_preset_and_size(seen, device, preset, size):
    config = choose(seen, DataConfig(), None, device)
    assert (config.preset, config.data.size, config.data.channels) == (preset, size, 3)


@pytest.mark.parametrize(
    ("count", "device", "said"), [(10_000, CUDA, True), (9_999, CUDA, False), (10_000, CPU, False)]
)
def test_a_gpu_with_many_images_is_told_of_the_large_network(count, device, said):
    config = choose([glance(32)] * 3, DataConfig(), None, device)
    assert suits_a_gpu(config, count, device) == said


def test_what_was_asked_for_goes_first():
    asked = DataConfig(size=(48, 40), channels=1, fit="pad", background="red", split="all")
    config = choose([glance(8)] * 3, asked, "small", CPU)
    assert (config.preset, config.data) == ("small", replace(asked, flip="auto"))
    grey = choose([glance(8, grey=True)] * 3, DataConfig(), None, CPU)
    assert grey.data.channels == 1
    assert choose([glance(8, grey=True), glance(8)], DataConfig(), None, CPU).data.channels == 3
    line = suggested_command("a b", with_budget(config, 10), "small", asked)
    flags = "--size 48 40 --channels 1 --fit pad --background red --split all --images 50000"
    assert line == f"bytepixels train 'a b' {flags}"


def test_the_size_of_a_source_is_packings(tmp_path):
    shapes = [(20, 30), (11, 40), (16, 9)]
    for k, (height, width) in enumerate(shapes):
        write(tmp_path / "set" / f"{k}.png", colours(1, height, width)[0])
        seen = [glance(*shape) for shape in shapes[: k + 1]]
        packed = pack(tmp_path / "set", cache=tmp_path / "cache")
        assert own_size(seen) == packed.images.shape[2:]


BUDGETS = {("small", 100): 50_000, ("small", 1_000): 100_000, ("small", 50_000): 400_000, ("digits", 9): 50_000}
BUDGETS |= {("digits", 1_797): 60_000, ("cifar10", 50_000): 100_000_000, ("cifar10", 100_000): 102_400_000}
BUDGETS |= {("speedrun", 50_000): 8_000_000, ("speedrun", 10_000): 2_000_000}


@pytest.mark.parametrize(("preset", "distinct"), BUDGETS, ids=str)
def test_the_budget(preset, distinct):
    config = with_batch(with_budget(PRESETS[preset](), distinct), 32)
    assert config.train.images == BUDGETS[preset, distinct]
    images, epochs = BUDGETS[preset, distinct], BUDGETS[preset, distinct] / distinct
    said = budget_sentence(TrainingPlan(config, "", "", epochs, False))
    assert said.startswith(f"{images:,} images ({epochs:,.{1 if epochs < 100 else 0}f} passes), ")
    rule = "less than the preset's" if images > 50_000 else "the minimum"
    assert ("the preset's." if images == PRESETS[preset]().train.images else rule) in said


def test_copies_do_not_count_towards_the_budget(tmp_path):
    images = colours(600, 8, 8)
    images[300:] = images[:300]
    np.save(tmp_path / "set.npy", images)
    found = doctor(tmp_path / "set.npy", "--quick", out=tmp_path / "found.json")
    assert found["data"]["copies"]["distinct"] == 300
    assert found["plan"]["epochs"] == pytest.approx(50_000 / 300)


def with_channels(config, channels=1):
    train = replace(config.train, precision="float32")
    return replace(config, data=replace(config.data, size=(8, 8), channels=channels), train=train)


def test_a_run_that_cannot_learn_is_found_out(monkeypatch):
    config, sample = with_channels(digits()), noise_sample()
    well = overfit(config, sample, CPU, 60.0, 1000)
    assert well.learns is True
    assert well.steps < 200
    assert well.loss_share <= 0.1
    monkeypatch.setattr(doctortrial, "OVERFIT_STEPS", doctortrial.OVERFIT_TELLING)
    still = replace(config, train=replace(config.train, lr=1e-12))
    found = overfit(still, sample, CPU, 60.0, 1000)
    assert (found.learns, found.steps) == (False, 30)
    assert found.loss_share == pytest.approx(1, abs=0.01)
    hasty = overfit(still, sample, CPU, 0.0, 1000)
    assert (hasty.learns, hasty.steps) == (None, 1)


def test_a_loss_that_is_not_finite_is_said_without_nan():
    config = with_channels(digits())
    wild = replace(config, train=replace(config.train, lr=0.999, clip_norm=0.0))
    found = overfit(wild, noise_sample(), CPU, 60.0, 1000)
    assert found.learns is False
    assert found.loss_share is None or math.isfinite(found.loss_share)


def test_the_loss_of_predicting_nothing_is_that_of_a_fresh_network():
    """Whose last layer is zero: an independent way to the same number."""
    config = with_channels(digits())
    found = overfit(replace(config, train=replace(config.train, lr=1e-30)), noise_sample(), CPU, 0.0, 1000)
    assert found.loss_share == pytest.approx(1, abs=1e-6)


def test_a_heavy_network_is_tried_on_fewer_images():
    config, sample = with_channels(digits()), noise_sample()
    assert overfit(config, sample, CPU, 0.0, 1000).images == 4
    assert overfit(config, sample, CPU, 0.0, 20_000_000).images == 2
    assert overfit(config, sample, CPU, 0.0, 10**10).images == 1


def test_bytes_that_an_image_leaves():
    """Two layers keep their inputs, a square its own: 3 x 10 float32 for each of 3 images. The second layer keeps its
    weights as well, which are there anyway."""
    model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False))

    def loss(model, x):
        return model(x).square().sum(dim=1)

    assert kept_bytes(model, loss, (torch.ones(3, 10),)) == 3 * 3 * 10 * 4


def test_what_an_image_takes_grows_with_its_area():
    config = with_channels(PRESETS["small"](), 3)
    one, four = (estimate_step(config, noise_sample(2, side, 3), CPU).bytes_per_image for side in (32, 64))
    corner = estimate_step(config, noise_sample(2, 128, 3), CPU).bytes_per_image
    assert four == pytest.approx(4 * one, rel=0.02)
    assert corner == pytest.approx(4 * four, rel=0.001)


def test_little_memory_makes_the_batch_go_in_parts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(doctortrial, "free_memory", lambda device: 40e6)
    found = doctor("digits", "--quick", out=tmp_path / "found.json")
    part = found["step"]["at_a_time"]
    assert 1 <= part < 64
    assert found["step"]["can_be_tried"]
    assert found["step"]["bytes"] <= 0.7 * 40e6
    assert found["plan"]["command"].endswith(f"--micro-batch {part}")


@pytest.mark.parametrize(("name", "value"), [("free_memory", lambda device: 1e6), ("MEASURE_SECONDS", 0.0)])
def test_what_takes_too_much_is_not_tried(tmp_path, monkeypatch, capsys, name, value):
    monkeypatch.setattr(doctortrial, name, value)
    found = doctor("digits", out=tmp_path / "found.json")
    assert found["measured"] is found["overfit"] is None
    assert found["findings"][0]["advice"].startswith("Choose a smaller --size or --preset")
    assert "Not tried" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fixed", "each", "batch"),  # seconds of a step, and of each image in it
    [(0.0, 1.0, 6), (5.0, 1.0, 1), (1.0, 0.001, 64), (0.9, 0.1, 26), (0.0, 0.05, 64)],
)
def test_a_slow_step_is_measured_on_as_many_images_as_there_is_time_for(monkeypatch, fixed, each, batch):
    """What was reckoned from steps of one image has their fixed part in it."""
    monkeypatch.setattr(
        doctortrial, "timed_steps", lambda config, *rest: [9.0] + [fixed + each * config.train.batch] * (rest[-1] - 1)
    )
    found = measure_step(with_channels(digits()), noise_sample(), CPU, fixed + each)
    assert found.measured_batch == batch
    assert found.seconds == [pytest.approx((fixed + each * batch) * 64 / batch)] * 9
    assert found.images_per_second == pytest.approx(64 / found.seconds[0])


def test_the_disk_is_the_fuller_one_of_cache_and_run(of_digits, monkeypatch):
    free = {str(verb.Path.cwd()): 10**9}
    monkeypatch.setattr(verb.shutil, "disk_usage", lambda place: SimpleNamespace(free=free.get(str(place), 5 * 10**8)))
    assert verb.free_disk() == 5 * 10**8
    free[str(verb.Path.cwd())] = 10**6
    assert verb.free_disk() == 10**6
    assert of_digits[0].needed_bytes == 1797 * 64 + 4 * of_digits[0].step.checkpoint_bytes


def test_findings_have_counts_and_advice_the_most_important_first(of_digits):
    found = of_digits[0]
    data, check = found.data, replace(found.overfit, learns=False, steps=77)
    copies = replace(data.copies, exact=[["a"] * 10])
    pixels = replace(data.pixels, one_colour=["a", "b"])
    data = replace(data, unreadable=[("a", "b")] * 1234, copies=copies, pixels=pixels, classes=data.classes | {"x": 1})
    findings = find_problems(data, found.plan, found.step, check, 3_000_000_000)
    assert [(one.kind, one.count) for one in findings] == [
        ("does_not_learn", 77),
        ("unreadable", 1234),
        ("disk", 3_000_000_000),
        ("exact_copies", 9),
        ("one_colour", 2),
        ("small_classes", 1),
    ]
    said = [one.advice for one in findings]
    assert all(any(letter.isdigit() for letter in sentence) for sentence in said)
    assert said[0].startswith("Find out why 77 steps")
    assert said[1].startswith("Repair or delete 1,234 files")
    assert said[2].startswith("Make room on the disk: 3.0 GB are lacking")
    assert said[3].startswith("Look at 9 exact copies and delete")
    assert said[5].startswith("Add images to 1 class with fewer than 50 images")


def test_images_that_only_look_alike_are_no_problem_where_that_is_the_nature_of_the_set(of_digits):
    found = of_digits[0]
    assert found.data.copies.near
    other = replace(found.data, copies=replace(found.data.copies, variants=False))
    kinds = [one.kind for one in find_problems(other, found.plan, found.step, found.overfit, 0)]
    assert kinds == ["copies_across_classes", "near_copies"]


def test_images_of_several_splits_that_are_in_the_one_looked_at_are_one_finding(of_digits):
    found = of_digits[0]
    leaks = {"val": Leak(5, [["a", "b"]], [["a", "c"]]), "other": Leak(3, [], []), "test": Leak(5, [["a", "d"]], [])}
    data = replace(found.data, copies=replace(found.data.copies, across_splits=leaks))
    (only,) = find_problems(data, found.plan, found.step, found.overfit, 0)
    assert (only.kind, only.count) == ("leaks", 2)  # those that only look alike do not count among digits
    assert only.advice.startswith("Take out 2 images of val and test that are in the split looked at too: ")


def test_nothing_is_said_where_nothing_is_wrong(of_digits):
    assert of_digits[0].findings == []


def test_a_narrow_terminal_gets_narrow_lines(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    write(tmp_path / "one.png", colours(1, 12, 12)[0])
    assert cli("data", "doctor", tmp_path / "one.png", "--quick", "--background", "black") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 60
    (typed,) = [line for line in lines if line.startswith("  bytepixels train")]
    assert typed.endswith("--background black --images 50000")  # in one piece


def test_json_goes_into_a_folder_that_is_made(tmp_path):
    Image.fromarray(colours(1, 8, 8)[0]).save(tmp_path / "one.png")
    assert doctor(tmp_path / "one.png", "--quick", out=tmp_path / "new" / "found.json")["data"]["files"] == 1
