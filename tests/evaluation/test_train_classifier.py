"""What evaluate measures: in float32, clipped as the run samples, against its own training set; on which images."""

import json
import shutil

import numpy as np
import pytest

from bytepixels.data import pack
from bytepixels.files import read_sealed, write_sealed
from tests.tiny import cli, plain, train, words

FEW = words("-n 12 --ode-steps 1 --probes 1")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """uint8 [1797, 8, 8] and their labels, shuffled."""
    packed = pack("digits", cache=tmp_path_factory.mktemp("digits"))
    order = np.random.default_rng(0).permutation(len(packed))
    return packed.images[order, 0], packed.labels[order]


def save(path, digits, labels=True, **splits):
    """One file with these rows of the digits as its splits."""
    arrays = {f"images_{name}": digits[0][rows] for name, rows in splits.items()}
    if labels:
        arrays |= {f"labels_{name}": digits[1][rows] for name, rows in splits.items()}
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def source(digits, tmp_path_factory):
    return save(tmp_path_factory.mktemp("source") / "few.npz", digits, train=slice(200), test=slice(1000, 1040))


@pytest.fixture(scope="module")
def run(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    assert train(path, *words("--warmup 0 --lr-decay none --timesteps 20"), steps=20, source=source) == 0
    return path


def as_if(run, to, part, **settings):
    """A copy of the run whose config says otherwise, sealed as if that had been meant."""
    shutil.copytree(run, to)
    saved = read_sealed(to / "config.json")
    assert saved["config"][part].keys() >= settings.keys()
    saved["config"][part] |= settings
    write_sealed(to / "config.json", saved)
    return to


def measured(run, *flags):
    """The lines that one evaluation adds to eval.jsonl, {kind: line}."""
    before = len((run / "eval.jsonl").read_text().splitlines()) if (run / "eval.jsonl").exists() else 0
    assert cli("evaluate", run, *flags) == 0
    lines = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()[before:]]
    return {line["kind"]: line for line in lines}


def test_a_run_in_bf16_is_measured_in_float32(run, tmp_path):
    """The same weights give the same numbers to the last bit, whatever they were trained in."""
    both = [
        measured(as_if(run, tmp_path / precision, "train", precision=precision), "--bits", "--loss", *FEW)
        for precision in ("float32", "bf16")
    ]
    one, other = both
    assert one["bits"]["bits_per_dimension"] == other["bits"]["bits_per_dimension"]
    assert one["loss"]["errors"] == other["loss"]["errors"]


def test_estimates_are_clipped_where_the_run_samples_so(run, tmp_path):
    """Pixels lie in -1..1: clipping an estimate into it takes it nearer to any image, or leaves it."""
    clipped, free = (
        measured(as_if(run, tmp_path / str(clip), "sample", clip=clip), "--bits", "--loss", *FEW)
        for clip in (True, False)
    )
    assert (clipped["loss"]["clip"], free["loss"]["clip"]) == (True, False)
    for kind in ("training", "held_out"):
        lower, higher = (np.array(found["loss"]["errors"][kind])[:, 0] for found in (clipped, free))
        assert (lower <= higher).all()
        assert (lower < 0.95 * higher).sum() > len(lower) / 3
    for kind in ("trivial", "ideal"):  # which are what they are
        assert clipped["loss"]["errors"][kind] == free["loss"]["errors"][kind]
    chains = [found["bits"]["bits_per_dimension"]["large"]["L_t"] for found in (clipped, free)]
    assert chains[0] < chains[1]


def test_a_run_that_mirrors_is_compared_with_the_mirror_images_too(run, tmp_path):
    """At the noisiest level the ideal knows nothing: it may have been any image of the class, or twice as many."""
    own, mirrored = (
        measured(as_if(run, tmp_path / flip, "data", flip=flip), "--loss", "-n", 12)["loss"] for flip in ("no", "yes")
    )
    assert mirrored["perplexity"][0] == pytest.approx(2 * own["perplexity"][0], rel=1e-3)
    assert mirrored["perplexity"][-1] == pytest.approx(1, abs=1e-3)


# ---- which images


def test_another_source_is_measured_on_its_test_split_unless_told(run, digits, tmp_path, capsys):
    other = save(tmp_path / "other.npz", digits, train=slice(300, 330), test=slice(1100, 1120))
    single = save(tmp_path / "single.npz", digits, train=slice(400, 430))
    for path, flags, split in ((other, (), "test"), (other, ("--split", "train"), "train"), (single, (), "train")):
        capsys.readouterr()
        sha = pack(path, split=split).meta["sha256"]["images"]
        expected = {"source": str(path), "split": split, "trained_on": False, "sha256": sha}
        assert measured(run, "--bits", *FEW, "--source", path, *flags)["bits"]["data"] == expected
    assert "no held-out images" in plain(capsys.readouterr().out)


def test_a_run_that_always_had_labels_refuses_images_without(run, source, digits, tmp_path, capsys):
    bare = save(tmp_path / "bare.npz", digits, labels=False, train=slice(300, 330), test=slice(1100, 1120))
    always = tmp_path / "always"
    assert train(always, "--label-dropout", 0, "--timesteps", 20, source=source) == 0
    assert cli("evaluate", always, "--bits", *FEW, "--source", bare, "--split", "test") == 2
    sentence = f"{always} was trained with --label-dropout 0: it needs images with labels, these have none"
    assert sentence in plain(capsys.readouterr().err)
    assert not (always / "eval.jsonl").exists()
    assert measured(always, "--bits", *FEW)["bits"]["n"] == 12  # its own have labels
    assert measured(run, "--bits", *FEW, "--source", bare, "--split", "test")["bits"]["n"] == 12  # knows no label too
