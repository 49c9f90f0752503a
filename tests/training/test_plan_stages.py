"""train latent: both stages, the budget between them; encode: the latents alone."""

import os
import signal

import pytest

from bytepixels.config.run import with_settings
from bytepixels.requests.keywords import Keywords
from bytepixels.runs.run_directory import FIRST_STAGE, open_run
from bytepixels.training import session as train_verb
from bytepixels.training.plan_stages import planned_latent
from tests.tiny import TINY, checkpoints, cli, log_of, plain, same_bits, words

STAGE = words("--stage.width 8 --stage.factor 2 --stage.latent-channels 2 --stage.blocks 1")


def both(run, *flags):
    return cli("train", "latent", "digits", *TINY, *STAGE, *flags, "--run", run)


def budgets(run):
    return [open_run(path).config.train for path in (run.with_name(f"{run.name}-autoencoder"), run)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    assert both(path, "--images", 160, "--share", 0.2) == 0
    return path


def test_two_runs_with_their_shares_of_the_budget(run, tmp_path, capsys):
    stage, model = budgets(run)
    assert (stage.images, model.images) == (32, 128)
    assert len(log_of(run)) == 4
    assert (run / FIRST_STAGE).is_file()
    assert open_run(run).x0_shape == (2, 4, 4)
    assert cli("sample", run, "-n", 2, "--out", tmp_path / "out") == 0
    capsys.readouterr()
    assert both(run, "--images", 160, "--share", 0.2) == 0  # the same command again
    assert capsys.readouterr().out.count("is finished") == 2


def test_it_goes_on_without_a_budget_given_with_those_it_has(run):
    """Not with a share of a share."""

    def images(**settings):
        def asked(stage, model):
            return stage, with_settings(model, settings), 0.4

        both, said = planned_latent(Keywords(settings | {"run": run}), "digits", asked)
        assert said == ""
        return [config.train.images for config, _ in both]

    assert images() == [32, 128]
    assert images(images=320) == [128, 192]


@pytest.mark.parametrize("flags", ["--epochs 2", "--budget 100s"])
def test_budgets_of_every_kind_are_shared(flags, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(train_verb, "train", lambda source, config, *rest: seen.append(config.train) or 0)
    assert both(tmp_path / "run", *words(flags)) == 0
    stage, model = seen
    if "epochs" in flags:
        assert (stage.epochs, model.epochs, stage.budget, model.budget) == (0.8, 1.2, None, None)
    else:
        assert (stage.budget, model.budget, stage.epochs, model.epochs) == ("40s", "60s", None, None)


def test_an_interrupted_first_stage_ends_the_command_and_goes_on_with_it(tmp_path, monkeypatch):
    whole, parts, drawn = tmp_path / "whole", tmp_path / "parts", []
    assert both(whole, "--images", 160) == 0
    take = train_verb.Trainer.take

    def interrupted(trainer, step):
        drawn.append(step)
        if len(drawn) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return take(trainer, step)

    monkeypatch.setattr(train_verb.Trainer, "take", interrupted)
    assert both(parts, "--images", 160) == 130
    assert not parts.exists()
    assert both(parts, "--images", 160) == 0
    for name in ("", "-autoencoder"):
        one, other = (checkpoints(path.with_name(path.name + name))[-1] for path in (whole, parts))
        assert same_bits(one, other) == []


def test_a_process_killed_as_it_began_leaves_a_place_to_begin(run, tmp_path):
    """After its first stage was written, before its settings were."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / FIRST_STAGE).write_bytes(b"")
    line = "train", "digits", *TINY, "--images", 32, "--autoencoder", run, "--run", tmp_path / "run"
    assert cli(*line) == 0


def test_encode_says_what_the_latents_are_like(run, capsys):
    stage = run.with_name("run-autoencoder")
    capsys.readouterr()
    assert cli("encode", stage, "digits") == 0
    said = capsys.readouterr().out
    assert "1,797 images: latents of 4 x 4, channels 2, in " in said  # digits are not mirrored
    mean = open_run(run).data["first_stage"]["statistics"]["mean"][1]
    assert f"channel 1: mean {mean:.4g}, standard deviation" in said
    assert cli("encode", stage, "digits", "--flip", "yes") == 0
    assert "1,797 images, as they are and mirrored" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--share 1", "--share must be between 0 and 1, got 1"),
        ("--autoencoder X", "train latent trains its own autoencoder; with one: bytepixels train SOURCE --autoencoder"),
        ("--stage.factor 3", "--factor must be one of 1, 2, 4, 8; got 3"),
        ("--patch 2", "--patch belongs to --backbone dit, got --backbone unet"),
        ("--preset cifar10", "was begun with --preset digits, got cifar10; choose another --run"),
    ],
)
def test_one_sentence_for_every_mistake(run, flags, said, capsys):
    assert cli("train", "latent", "digits", "--run", run, *words(flags)) == 2
    assert said in plain(capsys.readouterr().err)
