"""evaluate, report and runs of an autoencoder's run, and the report of a run on its latents."""

import json

import pytest

from bytepixels.distributed.process_group import SINGLE_PROCESS
from bytepixels.evaluation.yardstick import open_reference_set
from bytepixels.metrics.feature_cache import features_of
from bytepixels.metrics.sample_metrics import frechet
from bytepixels.runs.run_directory import open_run
from tests.tiny import cli, pixels_of, plain, read_json, train, words

FLAGS = words("--width 8 --factor 2 --latent-channels 2 --blocks 1 --batch 16 --warmup 0 --lr-decay none --device cpu")


@pytest.fixture(scope="module", params=["kl", "vq"])
def stage(request, source, tmp_path_factory):
    path = tmp_path_factory.mktemp("stage") / "stage"
    line = ["--kind", request.param, "--codes", 16, "--images", 320, "--previews", 2, "--measure", 20]
    assert cli("train", "autoencoder", source, *FLAGS, *line, "--run", path) == 0
    return path


def test_what_is_said_of_reconstructions(stage, capsys):
    capsys.readouterr()
    assert cli("evaluate", stage, "-n", 40) == 0
    said = capsys.readouterr().out
    *_, record = (json.loads(line) for line in (stage / "eval.jsonl").read_text().splitlines())
    assert record["kind"] == "reconstruction"
    assert record.keys() >= {"features", "reference", "checkpoint", "weights", "seed", "made_by", "ladder"}
    assert ("kl" in record) != ("codes_used" in record)
    assert record["of"] == "40 held-out images"
    assert f"PSNR {record['psnr']:.2f} dB, SSIM {record['ssim']:.4f} (40 held-out images)" in said
    sheet = pixels_of(stage / "evaluate" / "reconstructions.png")
    assert sheet.shape[1] > 5 * sheet.shape[0]  # two rows of 16
    yardstick = open_reference_set(open_run(stage), "random", None, 50_000, SINGLE_PROCESS)
    images, _ = yardstick.others(40, 0)
    floor = frechet(features_of(yardstick.features, images).features, yardstick.moments)[0]
    assert record["floor"]["measures"]["frechet"]["value"] == pytest.approx(floor, rel=1e-9)
    assert record["frechet_distance"] > 2 * floor  # after 20 steps


def test_drawing_flags_are_refused(stage, capsys):
    assert cli("evaluate", stage, "--steps", 5, "--sampler", "ddim") == 2
    said = plain(capsys.readouterr().err)
    assert "is an autoencoder, which draws nothing: it has no use for --sampler and --steps" in said


def test_report_and_runs(stage, source, capsys):
    assert cli("evaluate", stage, "-n", 20) == 0
    assert cli("report", stage) == 0
    page = (stage / "report.html").read_text()
    for shown in ("<h3>Reconstructions</h3>", "PSNR, dB", "latents of 1/2 of the side, channels 2"):
        assert shown in page
    assert "bytepixels train autoencoder" in page
    assert "bytepixels sample" not in page
    capsys.readouterr()
    assert cli("runs", "show", stage) == 0
    said = capsys.readouterr().out
    assert f"go on:  bytepixels train autoencoder {source}" in said
    assert f"train on its latents: bytepixels train {source} --autoencoder {stage}" in said
    assert cli("runs", "list", stage.parent) == 0


def test_the_report_of_a_latent_run_names_its_first_stage(stage, source, tmp_path):
    run = tmp_path / "run"
    assert train(run, "--autoencoder", stage, source=source) == 0
    assert cli("report", run, "--strip", 2) == 0
    assert f"on latents of 4 x 4, channels 2, of {stage}" in (run / "report.html").read_text()
    assert read_json(run / "config.json")["data"]["first_stage"]["source"] == str(stage)


def test_compiling_with_a_discriminator_is_refused(source, tmp_path, capsys):
    line = [*FLAGS, "--images", 16, "--discriminator", 1, "--compile", "yes"]
    assert cli("train", "autoencoder", source, *line, "--run", tmp_path / "run") == 2
    assert "--compile yes does not go with --discriminator" in plain(capsys.readouterr().err)
    assert not (tmp_path / "run").exists()
