"""edit: what each kind writes, that it does what it says to the images, and one sentence for every mistake."""

import shutil

import numpy as np
import pytest
from PIL import Image

from bytepixels.runs.run_directory import open_run
from bytepixels.sampling import edit_plans as editplans
from bytepixels.sampling.edit_images import load_image
from bytepixels.verbs import VERBS
from tests.tiny import cli, pixels_of, plain, read_json, snapshot, train, words

KINDS = [name.removeprefix("edit ") for name in VERBS if name.startswith("edit ")]


def trained(tmp_path_factory, *flags):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYTEPIXELS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        path = tmp_path_factory.mktemp("edit") / "run"
        assert train(path, *words("--warmup 0 --lr-decay none --steps 6"), *flags, steps=20) == 0
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """20 steps on 8 x 8 digits with classes; it samples with 6 steps of ddim."""
    return trained(tmp_path_factory)


@pytest.fixture(scope="module")
def no_null_label(tmp_path_factory):
    return trained(tmp_path_factory, "--label-dropout", 0)


@pytest.fixture
def here(tmp_path):
    """two.png, wide.png and masks, in the folder that the test may write to."""
    y, x = np.mgrid[:8, :8]
    Image.fromarray((30 * y + 2 * x).astype(np.uint8)).save(tmp_path / "one.png")
    Image.fromarray((250 - 25 * x - y).astype(np.uint8)).save(tmp_path / "two.png")
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 24:] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(np.where(y < 3, 255, 0).astype(np.uint8)).save(tmp_path / "top.png")
    Image.fromarray(np.full((8, 8), 127, np.uint8)).save(tmp_path / "black.png")
    Image.fromarray(np.full((8, 8), 128, np.uint8)).save(tmp_path / "white.png")
    (tmp_path / "text.png").write_text("no image")
    return tmp_path


def edit(kind, run, *flags):
    """What was written to --out, by name, and the manifest."""
    out = run.parent / f"out-{kind}-{len(list(run.parent.iterdir()))}"
    assert cli("edit", kind, run, *flags, "--out", out) == 0
    manifest = read_json(out / "manifest.json")
    files = [one["file"] for one in manifest["pictures"]]
    assert {path.name for path in out.iterdir()} == {*files, "grid.png", "manifest.json"}
    assert manifest["edit"] == kind
    return {file: pixels_of(out / file) for file in files}, manifest


# ---- help


@pytest.mark.parametrize("line", [[], ["--help"], ["-h"], ["help"]], ids=str)
def test_edit_alone_lists_the_four(capsys, line):
    assert cli("edit", *line) == 0
    said = capsys.readouterr().out
    assert all(f"edit {kind} RUN" in said for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_explains_itself(capsys, kind):
    assert cli("edit", kind, "--help") == 0
    assert f"usage: bytepixels edit {kind} RUN" in plain(capsys.readouterr().out)


# ---- inpaint


@pytest.mark.parametrize(
    "flags", ["", "--sampler dpmpp_sde_2m", "--sampler ddim --eta 0.5", "--label 3 --guidance 2", "--clip False"]
)
def test_inpaint_keeps_what_is_black_to_the_pixel(run, here, flags):
    images, manifest = edit("inpaint", run, here / "one.png", "--mask", here / "top.png", "-n", 3, *words(flags))
    original = pixels_of(here / "one.png")
    assert list(images) == ["seed-0.png", "seed-1.png", "seed-2.png"]
    for one in images.values():
        assert (one[3:] == original[3:]).all()
        assert (one[:3] != original[:3]).any()
    assert (images["seed-0.png"] != images["seed-1.png"]).any()
    assert manifest["settings"]["steps"] == 6
    assert manifest["label"] == ("3" if "label" in flags else None)


def test_inpaint_says_what_it_costs_and_how_it_was_made(run, here, capsys):
    _, manifest = edit("inpaint", run, here / "one.png", "--mask", here / "top.png", *words("--jump 2 --repeats 3"))
    assert (manifest["jump"], manifest["repeats"], manifest["evaluations"]) == (2, 3, 6 + 2 * 2 * 2)
    assert "14 evaluations of the network for each image" in capsys.readouterr().out
    assert manifest["settings"]["sampler"] == "ddpm"
    assert manifest["settings"]["reverse_variance"] == "small"
    _, manifest = edit("inpaint", run, here / "one.png", "--mask", here / "top.png", *words("--repeats 1 --steps 9"))
    assert (manifest["jump"], manifest["evaluations"]) == (1, 9)


def test_a_result_depends_on_its_seed_alone(run, here):
    line = [here / "one.png", "--mask", here / "top.png", *words("--seed 5")]
    many, _ = edit("inpaint", run, *line, *words("-n 3 --batch 2"))
    (one,) = edit("inpaint", run, here / "one.png", "--mask", here / "top.png", *words("--seed 7 -n 1"))[0].values()
    assert np.abs(many["seed-7.png"].astype(int) - one).max() <= 1


def test_a_mask_is_made_to_fit_as_the_image_is(run, here):
    """48 x 16, its right half white: the middle third of both is what the run sees, scaled to 8 x 8."""
    images, _ = edit("inpaint", run, here / "wide.png", "--mask", here / "wide.png", "-n", 1)
    (one,) = images.values()
    fitted = load_image(open_run(run), here / "wide.png")[0].numpy()
    assert (one[:, :4] == fitted[:, :4]).all()
    assert (one[:, 4:] != fitted[:, 4:]).any()
    assert (fitted[:, 1] < 10).all()
    assert (fitted[:, 6] > 245).all()


# ---- vary


def test_vary_goes_farther_with_more_strength(run, here):
    original = pixels_of(here / "one.png").astype(int)
    distances = []
    for strength, taken in ((0.01, 1), (0.5, 3), (1, 6)):
        images, manifest = edit("vary", run, here / "one.png", "--strength", strength, "-n", 6)
        assert (manifest["strength"], manifest["steps_taken"], manifest["evaluations"]) == (strength, taken, taken)
        distances.append(np.mean([np.abs(one - original).mean() for one in images.values()]))
    assert distances[0] < distances[1] < distances[2]


def test_vary_takes_the_runs_own_sampler_or_another(run, here):
    assert edit("vary", run, here / "one.png", "-n", 1)[1]["settings"]["sampler"] == "ddim"
    _, manifest = edit("vary", run, here / "one.png", *words("-n 1 --sampler heun --strength 1"))
    assert (manifest["settings"]["sampler"], manifest["evaluations"]) == ("heun", 11)


# ---- interpolate


def test_interpolation_of_seeds_begins_and_ends_with_their_own_images(run, tmp_path):
    images, manifest = edit("interpolate", run, 3, 13, "-n", 5, "--label", 3)
    assert cli("sample", run, *words("-n 1 --seed 3 --label 3 --out"), tmp_path / "3") == 0
    assert cli("sample", run, *words("-n 1 --seed 13 --label 3 --out"), tmp_path / "13") == 0
    first, *_, last = images.values()
    assert np.abs(first.astype(int) - pixels_of(tmp_path / "3" / "seed-3.png")).max() <= 1
    assert np.abs(last.astype(int) - pixels_of(tmp_path / "13" / "seed-13.png")).max() <= 1
    assert manifest["shares"] == [0, 0.25, 0.5, 0.75, 1]
    assert "rmse" not in manifest["pictures"][0]


def test_interpolation_of_images_begins_and_ends_with_them(run, here, capsys):
    line = [here / "one.png", here / "two.png", *words("-n 3 --steps 30 --clip False --refine 2")]
    images, manifest = edit("interpolate", run, *line)
    one, two = (pixels_of(here / name).astype(int) for name in ("one.png", "two.png"))
    first, middle, last = images.values()
    assert np.abs(first - one).mean() < 8
    assert np.abs(last - two).mean() < 8
    assert np.abs(middle - one).mean() > 8 < np.abs(middle - two).mean()
    for image_facts, error in ((manifest["pictures"][0], first - one), (manifest["pictures"][2], last - two)):
        assert image_facts["rmse"] == pytest.approx(np.sqrt((error**2).mean()))
    assert "rmse" not in manifest["pictures"][1]
    said = capsys.readouterr().out
    assert "000.png against the input: " in said
    assert "002.png against the input: " in said


# ---- invert


def test_invert_comes_nearer_with_refinement_and_says_how_near(run, here, capsys):
    original, errors = pixels_of(here / "one.png").astype(int), []
    for refine in (0, 8):
        images, manifest = edit("invert", run, here / "one.png", *words("--clip False --refine"), refine)
        assert manifest["evaluations"] == 6 * (1 + refine) + 6
        errors.append(np.sqrt(((original - images["reconstruction.png"]) ** 2).mean()))
        facts, said = manifest["pictures"][1], capsys.readouterr().out
        assert facts["rmse"] == pytest.approx(errors[-1])
        if errors[-1] == 0:
            assert facts["psnr"] is None
            assert "reconstruction.png against the input: equal, pixel for pixel" in said
        else:
            assert facts["psnr"] == pytest.approx(20 * np.log10(255 / errors[-1]))
            assert f"RMSE {errors[-1]:.3g} grey levels of 255, PSNR {facts['psnr']:.1f} dB" in said
    assert errors[1] < errors[0] / 2
    assert 20 < images["noise.png"].std() < 90  # shown at 42 grey levels for each standard deviation


def test_the_default_folder_is_below_the_run(run, here):
    assert cli("edit", "invert", run, here / "one.png", "--steps", 2) == 0
    (folder,) = (run / "samples").glob("invert-one-ddim-2-*")
    assert (folder / "grid.png").is_file()


def test_default_folders_differ_where_the_images_do(run, here, monkeypatch):
    """Settings, flags of the kind of edit, and another image of the same name."""
    (here / "other").mkdir()
    shutil.copy(here / "two.png", here / "other/one.png")
    lines = [
        "invert {run} one.png --steps 3",
        "invert {run} one.png --steps 3 --refine 0",
        "invert {run} one.png --steps 3 --spacing log_snr",
        "invert {run} one.png --steps 3 --clip False",
        "invert {run} other/one.png --steps 3",
        "vary {run} one.png -n 1 --steps 3",
        "vary {run} one.png -n 1 --steps 3 --eta 1",
        "inpaint {run} one.png --mask top.png -n 1 --steps 4",
        "inpaint {run} one.png --mask top.png -n 1 --steps 4 --repeats 1",
        "inpaint {run} one.png --mask top.png -n 1 --steps 4 --jump 2",
    ]
    monkeypatch.chdir(here)
    before = set((run / "samples").iterdir())
    for line in lines:
        assert cli("edit", *line.format(run=run).split()) == 0
    assert len(set((run / "samples").iterdir()) - before) == len(lines)


# ---- mistakes

REFUSED = {
    "no such kind": ("inpant {run} one.png", "the word after edit must be one of inpaint, vary, interpolate, invert"),
    "no run": ("vary nowhere one.png", "is not a run: it has no config.json"),
    "no image": ("vary {run} three.png", "there is no file three.png"),
    "not an image": ("vary {run} text.png", "holds no readable image"),
    "a folder": ("vary {run} .", ". is a folder, not an image file"),
    "strength 0": ("vary {run} one.png --strength 0", "--strength must be above 0 and at most 1, got 0"),
    "strength": ("vary {run} one.png --strength 1.1", "--strength must be above 0 and at most 1, got 1.1"),
    "no mask": ("inpaint {run} one.png", "--mask"),
    "mask missing": ("inpaint {run} one.png --mask mask.png", "there is no file mask.png"),
    "mask of another shape": (
        "inpaint {run} one.png --mask wide.png",
        "wide.png must have the shape of one.png: it is",
    ),
    "huge guidance": ("vary {run} one.png --label 3 --guidance 1e300", "--guidance must be in 0..1000.0, got 1e+300"),
    "endless guidance": ("vary {run} one.png --label 3 --guidance inf", "--guidance must be at least 0 and finite"),
    "too many": ("vary {run} one.png -n 5000000000", "-n must be in 1..4294967295, got 5000000000"),
    "black mask": (
        "inpaint {run} one.png --mask black.png",
        "black.png has no white pixel (128 of 255 and more counts as white",
    ),
    "white mask": ("inpaint {run} one.png --mask white.png", "white.png is all white"),
    "sampler": ("inpaint {run} one.png --mask top.png --sampler heun", "takes a sampler that draws noise"),
    "no eta": ("inpaint {run} one.png --mask top.png --sampler ddim", "takes a sampler that draws noise"),
    "jump": ("inpaint {run} one.png --mask top.png --jump 6", "jump must be in 1..5, got 6"),
    "repeats": ("inpaint {run} one.png --mask top.png --repeats 0", "--repeats must be at least 1, got 0"),
    "seed and image": (
        "interpolate {run} 3 one.png",
        "two images or two seeds (whole numbers from 0), got 3 and one.png",
    ),
    "seed": ("interpolate {run} 3 4294967296", "a seed must be in 0..4294967295, got 4294967296"),
    "one image": ("interpolate {run} 3 4 -n 1", "-n must be at least 2, got 1"),
    "refine": ("invert {run} one.png --refine -1", "--refine must be at least 0, got -1"),
    "label": ("vary {run} one.png --label 33", "--label must be one of 0, 1, 2"),
    "guidance": ("vary {run} one.png --guidance 2", "--guidance 2 needs a --label to guide towards"),
    "steps": ("vary {run} one.png --steps 1001", "--steps must be in 1..1000, got 1001"),
    "n": ("vary {run} one.png -n 0", "-n must be at least 1, got 0"),
    "batch": ("vary {run} one.png --batch 0", "--batch must be at least 1, got 0"),
    "device": ("vary {run} one.png --device nonsense", "--device nonsense is not on this machine"),
    "checkpoint": ("vary {run} one.png --checkpoint step-1", "--checkpoint must be one of"),
    "a typo": ("vary {run} one.png --strenght 0.5", "--strength"),
}


@pytest.mark.parametrize(("line", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(run, here, monkeypatch, capsys, line, sentence):
    monkeypatch.chdir(here)
    before = snapshot(here), snapshot(run)
    assert cli("edit", *words(line.format(run=run)), "--out", "made") == 2
    said = capsys.readouterr()
    assert sentence in plain(said.err)
    assert "Traceback" not in said.err
    assert (snapshot(here), snapshot(run)) == before


def test_a_run_that_never_saw_an_image_without_a_label_needs_one(no_null_label, here, capsys):
    assert cli("edit", "vary", no_null_label, here / "one.png") == 2
    assert "so every edit needs a --label" in plain(capsys.readouterr().err)
    assert edit("vary", no_null_label, here / "one.png", "--label", 3, "-n", 1)[1]["label"] == "3"


def test_an_interruption_leaves_what_is_done_with_its_grid_and_manifest(run, here, monkeypatch, capsys):
    """Ctrl-C while the second batch is drawn."""
    drawn = []
    last_image = editplans.Editing.last_image

    def interrupted(editing, states):
        if drawn:
            raise KeyboardInterrupt
        drawn.append(1)
        return last_image(editing, states)

    monkeypatch.setattr(editplans.Editing, "last_image", interrupted)
    out = here / "out"
    assert cli("edit", "vary", run, here / "one.png", *words("-n 5 --batch 2"), "--out", out) == 130
    assert capsys.readouterr().err.endswith(f"bytepixels: interrupted: 2 of 5 images kept in {out}\n")
    assert {path.name for path in out.iterdir()} == {"seed-0.png", "seed-1.png", "grid.png", "manifest.json"}
    assert [one["file"] for one in read_json(out / "manifest.json")["pictures"]] == ["seed-0.png", "seed-1.png"]


def test_images_of_an_earlier_edit_stay_and_are_told_apart(run, here, capsys):
    line = ("edit", "interpolate", run, 3, 4, "--out", here / "out")
    assert cli(*line, "-n", 4) == 0
    assert "note" not in capsys.readouterr().out
    assert cli(*line, "-n", 2) == 0
    said = (
        f'note: 2 images of earlier calls stay in {here / "out"}: manifest.json lists what is new, and below "earlier"'
    )
    assert said in capsys.readouterr().out
    manifest = read_json(here / "out" / "manifest.json")
    assert [one["file"] for one in manifest["pictures"]] == ["000.png", "001.png"]
    assert [[one["file"] for one in call["pictures"]] for call in manifest["earlier"]] == [["002.png", "003.png"]]
    assert (here / "out" / "003.png").is_file()


def test_out_may_name_a_png(run, here, capsys):
    assert cli("edit", "vary", run, here / "one.png", "-n", 1, "--out", here / "new.png") == 0
    assert "new.png: the image; " in capsys.readouterr().out
    assert pixels_of(here / "new.png").shape == (8, 8)
    assert read_json(here / "new.manifest.json")["edit"] == "vary"
