"""Presets and the config: each preset is whole, what is saved comes back, what is unknown or impossible is refused."""

import json
import re
from dataclasses import asdict, fields, replace

import pytest
import torch

from bytepixels.build import build_network, build_process
from bytepixels.cli.help_text import help_of
from bytepixels.config.data import DataConfig
from bytepixels.config.diffusion import ProcessConfig
from bytepixels.config.network import NetworkConfig
from bytepixels.config.presets import DITS, PRESETS, autoencoder_config, own_command, own_flags, preset_with
from bytepixels.config.run import MUTABLE, Config, changed_settings
from bytepixels.config.sampling import SampleConfig
from bytepixels.config.training import TrainConfig
from bytepixels.core.gaussian_diffusion import SPACINGS
from bytepixels.core.prediction import PREDICTIONS
from bytepixels.errors import InputError
from bytepixels.registries import NETWORKS, OBJECTIVES, SAMPLERS, SCHEDULES, WEIGHTINGS
from bytepixels.requests.sample import Sample
from bytepixels.sampling.settings import build_sampling, resolved_sampling

CPU = torch.device("cpu")


@pytest.mark.parametrize("backbone", NETWORKS)
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds(name, backbone):
    config = preset_with(name, backbone)
    assert (config.preset, config.network.backbone) == (name, backbone)
    process = build_process(config)
    assert config.process.diffusion != "ddpm" or len(process.betas) == config.process.timesteps
    channels, classes = (1, 10) if name == "digits" else (3, 0)
    height, width = config.data.size or (8, 8)
    network = build_network(config, (channels, height, width), classes, CPU)
    label = torch.zeros(2, dtype=torch.long) if classes else None
    x = torch.randn(2, channels, height, width)
    assert network(x, torch.zeros(2), label).shape == x.shape
    settings = resolved_sampling(config.sample, config, process)
    levels = process.levels(settings.steps, settings.spacing)
    assert len(levels) == settings.steps + 1
    denoise, step = build_sampling(network, config, settings, process, label)
    assert step(x, *levels[-2:], denoise, torch.randn_like)[0].shape == x.shape


def test_every_preset_has_a_dit_that_learns_the_same_labels():
    assert DITS.keys() == PRESETS.keys()
    for name in PRESETS:
        unet, dit = preset_with(name), preset_with(name, "dit")
        assert unet == PRESETS[name]()
        assert replace(dit, network=unet.network) == unet
        assert dit.network.labels == unet.network.labels


def test_the_flags_of_a_run_make_it_of_its_preset():
    assert own_flags(PRESETS["digits"]()) == []
    assert own_flags(preset_with("digits", "dit")) == ["--backbone dit"]
    config = preset_with("small", "dit")
    config = replace(config, network=replace(config.network, depth=3), train=replace(config.train, lr=1e-4))
    assert own_flags(config) == ["--backbone dit", "--depth 3", "--lr 0.0001"]
    assert own_flags(replace(config, preset="of another version")) == []


def test_the_command_of_a_run_is_the_one_that_was_typed():
    """Settings whose default is None are in it, and a budget of time stays one whatever images it came to."""
    preset = preset_with("digits")
    typed = (
        "--size 8 16 --background '#80c0ff' --flip yes --no-labels --text 'a folder' --budget 90s --checkpoint-minutes "
        "2.5 --previews 0 --tensorboard --guidance-interval 0.5 3.0 --clip no --autoencoder runs/ae"
    )
    asked = replace(preset.data, size=(8, 16), flip="yes", background="#80c0ff")
    config = replace(
        preset,
        data=replace(asked, channels=1),
        network=replace(preset.network, labels=False, text="a folder", text_dim=64),
        train=replace(preset.train, images=4321, budget="90s", previews=0, checkpoint_minutes=2.5, tensorboard=True),
        sample=replace(preset.sample, guidance_interval=(0.5, 3.0), clip=False),
        first_stage="runs/ae",
    )
    config = replace(config, train=replace(config.train, precision="bf16", compile="no"))
    command = own_command(config, "my images", asdict(asked))
    assert command == f"bytepixels train 'my images' --preset digits {typed}"
    counted = replace(preset, train=replace(preset.train, images=4321, epochs=2.5))
    assert own_command(counted, "x") == "bytepixels train x --preset digits --epochs 2.5"
    first = replace(autoencoder_config(), autoencoder=replace(autoencoder_config().autoencoder, factor=2))
    assert own_command(first, "x") == "bytepixels train autoencoder x --factor 2"


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_says_its_command(name):
    sources = {"small": "IMAGES", "few_steps": "IMAGES", "speedrun": "cifar10"}
    command = f"bytepixels train {sources.get(name, name)}"
    command += "" if name == "small" else f" --preset {name}"
    assert command in [line.strip() for line in PRESETS[name].__doc__.splitlines()]


def test_digits_are_never_mirrored():
    assert PRESETS["digits"]().data.flip == "no"


def test_cifar10_is_ddpms_network():
    """35,746,307 parameters: diffusers' rendering of Ho et al.'s network for CIFAR-10."""
    network = build_network(PRESETS["cifar10"](), (3, 32, 32), 0, CPU)
    assert sum(parameter.numel() for parameter in network.parameters()) == 35_746_307
    config = PRESETS["cifar10"]()
    assert (config.process.schedule, config.process.prediction, config.process.timesteps) == ("linear", "eps", 1000)
    assert (config.train.images, config.train.batch, config.train.lr) == (800_000 * 128, 128, 2e-4)
    assert config.network.dropout == 0.1


def test_speedrun_is_cifar10s_network_with_classes_and_ends_with_its_budget():
    ours, theirs = PRESETS["speedrun"](), PRESETS["cifar10"]()
    own, other = (vars(config.network).items() for config in (ours, theirs))
    assert {name for name, _ in own - other} == {"labels", "dropout", "embedding"}
    assert ours.train.lr_decay != "none"
    assert max(ours.train.warmup, ours.train.ema_half_life) <= 0.05 * ours.train.images
    assert (ours.process.diffusion, ours.process.times, ours.train.optimizer) == ("flow", "logit_normal", "muon")


@pytest.mark.parametrize("backbone", NETWORKS)
@pytest.mark.parametrize("name", PRESETS)
def test_a_config_comes_back_from_json(name, backbone):
    config = preset_with(name, backbone)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert Config.from_dict({}) == Config()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"trian": {}}, "a key of config must be one of .*'trian'; did you mean 'train'"),
        ({"train": {"learning_rate": 1}}, "a key of train must be one of .*got 'learning_rate'"),
        ({"network": {"head": 1}}, "did you mean 'heads'"),
        ({"sample": {"step": 1}}, "did you mean 'steps'"),
        ({"data": {"flip": "maybe"}}, "--flip must be one of auto, yes, no; got 'maybe'"),
        ({"process": {"timesteps": 10}, "sample": {"steps": 11}}, r"--steps must be in 1\.\.10, got 11"),
        (
            {"sample": {"sampler": "ddpm", "reverse_variance": "learned"}},
            "needs a run that was trained with --variance",
        ),
        (
            {"sample": {"guidance": 2}, "network": {"labels": False}},
            "--guidance 2 needs class labels and a --label-drop",
        ),
        ({"sample": {"guidance": 2}, "train": {"label_dropout": 0.0}}, "--guidance 2 needs class labels and a --label"),
    ],
)
def test_unknown_keys_and_impossible_values_raise(values, sentence):
    with pytest.raises(InputError, match=sentence):
        Config.from_dict(values)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: DataConfig(fit="stretch"), "--fit"),
        (lambda: DataConfig(size=(8, 5000)), r"--size width must be in 1\.\.4096, got 5000"),
        (lambda: ProcessConfig(timesteps=0), "--timesteps"),
        (lambda: ProcessConfig(zero_terminal_snr=True), "--zero-terminal-snr needs --prediction v or x0, got eps"),
        (lambda: ProcessConfig(prediction="noise"), "--prediction"),
        (lambda: TrainConfig(lr=float("nan")), "--lr must be between 0 and 1, got nan"),
        (lambda: TrainConfig(clip_norm=float("nan")), "--clip-norm must be at least 0, got nan"),
        (lambda: TrainConfig(micro_batch=129), r"--micro-batch must be in 0\.\.128, got 129"),
        (lambda: TrainConfig(precision="fp16"), "--precision"),
        (lambda: TrainConfig(lr_decay="step"), "--lr-decay"),
        (
            lambda: ProcessConfig(diffusion="ddim"),
            "--diffusion must be one of ddpm, edm, flow; got 'ddim'; did you mean",
        ),
        (
            lambda: ProcessConfig(objective="elbo"),
            "--objective must be one of simple, hybrid, vlb, flow_map; got 'elbo'",
        ),
        (lambda: ProcessConfig(variance="large"), "--variance must be one of fixed, learned; got 'large'"),
        (lambda: ProcessConfig(weighting="min-snr"), "--weighting .*did you mean 'min_snr'"),
        (lambda: ProcessConfig(times="log_normal"), "--times with --diffusion ddpm must be one of auto, uniform, imp"),
        (
            lambda: ProcessConfig(diffusion="edm", times="importance"),
            "--times with --diffusion edm must be one of auto",
        ),
        (
            lambda: ProcessConfig(diffusion="edm", zero_terminal_snr=True),
            "--zero-terminal-snr rescales the schedule of ddpm",
        ),
        (lambda: NetworkConfig("vit"), "--backbone must be one of unet, dit, unet2d; got 'vit'"),
        (lambda: NetworkConfig("dit", attention=()), "--attention belongs to --backbone unet, got --backbone dit"),
        (lambda: NetworkConfig(patch=4), "--patch belongs to --backbone dit, got --backbone unet"),
        (lambda: NetworkConfig("dit", depth=0), "--depth must be at least 1, got 0"),
        (lambda: NetworkConfig("dit", patch=0), "--patch must be at least 1, got 0"),
        (lambda: NetworkConfig("dit", registers=-1), "--registers must be at least 0, got -1"),
        (lambda: NetworkConfig("dit", positions="learned"), "--positions must be one of rope, sincos; got 'learned'"),
        (lambda: SampleConfig(eta=0.5, sampler="ddpm"), "--eta 0.5 needs --sampler ddim"),
        (lambda: SampleConfig(eta=0.5, sampler="auto"), "--eta 0.5 needs --sampler ddim"),
        (lambda: SampleConfig("dpmpp_2m", churn=1.0), "--churn 1.0 needs --sampler ddim, euler or heun, got dpmpp_2m"),
        (lambda: SampleConfig("heun", steps=10, churn=4.2), r"--churn must be in 0\.\.4\.142 .*, got 4\.2"),
        (lambda: SampleConfig("heun", churn=-1.0), r"--churn must be in 0\.\.20\.71 .*, got -1"),
        (lambda: SampleConfig(reverse_variance="small"), "--reverse-variance small needs --sampler ddpm, got ddim"),
        (lambda: SampleConfig("ddpm", reverse_variance="big"), "--reverse-variance must be one of auto, small, large"),
        (lambda: SampleConfig(guidance_rescale=1.1), r"--guidance-rescale must be in 0\.\.1, got 1\.1"),
        (lambda: SampleConfig(guidance_parallel=-0.1), r"--guidance-parallel must be in 0\.\.1, got -0\.1"),
        (lambda: SampleConfig(guidance_interval=(2.0, 1.0)), "two numbers, 0 <= LOW <= HIGH, got 2 1"),
        (lambda: SampleConfig(guidance_interval=(-1.0, 1.0)), "two numbers, 0 <= LOW <= HIGH, got -1 1"),
        (lambda: SampleConfig(guidance_interval=(0.0, float("nan"))), "two numbers, 0 <= LOW <= HIGH, got 0 nan"),
    ],
)
def test_each_config_checks_itself(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


@pytest.mark.parametrize("steps", [1, 7, 18, 50, 250, 1000])
def test_the_churn_that_a_refusal_offers_is_accepted(steps):
    with pytest.raises(InputError) as refused:
        SampleConfig("heun", steps=steps, churn=steps)
    (limit,) = re.findall(r"--churn must be in 0\.\.(\S+) \(0\.414 for each of", str(refused.value))
    assert float(limit) == pytest.approx((2**0.5 - 1) * steps, abs=1e-3)
    assert SampleConfig("heun", steps=steps, churn=float(limit)).churn == float(limit)
    with pytest.raises(InputError, match=f"got {float(limit) + 0.002:g}"):
        SampleConfig("heun", steps=steps, churn=float(limit) + 0.002)


def test_the_config_knows_every_name_that_can_be_built():
    for schedule in SCHEDULES:
        ProcessConfig(schedule=schedule)
    for sampler in ("auto", *SAMPLERS):
        SampleConfig(sampler=sampler)
    for spacing in ("auto", *SPACINGS):
        SampleConfig(spacing=spacing)
    for weighting in ("none", *WEIGHTINGS):
        ProcessConfig(weighting=weighting)
    for objective in OBJECTIVES:
        ProcessConfig(objective=objective, variance="learned" if objective in ("hybrid", "vlb") else "fixed")


@pytest.mark.parametrize(
    ("request_of", "registries"),
    [
        (SampleConfig, (SAMPLERS, SPACINGS)),
        (Sample, (SAMPLERS, SPACINGS)),
        (ProcessConfig, (SCHEDULES, WEIGHTINGS, OBJECTIVES, PREDICTIONS)),
    ],
)
def test_the_help_names_every_name_that_can_be_built(request_of, registries):
    said = help_of("verb", request_of)
    for registry in registries:
        for name in registry:
            assert re.search(rf"\b{name}\b", said), name


def test_the_sample_command_has_a_flag_for_every_setting():
    assert {f.name for f in fields(SampleConfig)} <= {f.name for f in fields(Sample)}


def test_a_config_of_before_the_other_processes_still_opens():
    """What config.json held in the first version, the process and the sampler in full."""
    old = {
        "process": {"timesteps": 500, "schedule": "cosine", "zero_terminal_snr": False, "prediction": "v"},
        "sample": {
            "sampler": "ddim", "steps": 50, "spacing": "trailing", "eta": 0.5, "guidance": 1.0, "clip": True
        },
    }  # fmt: skip
    config = Config.from_dict(old)
    assert config.process == ProcessConfig(timesteps=500, schedule="cosine", prediction="v")
    assert (config.process.diffusion, config.process.objective, config.process.variance) == ("ddpm", "simple", "fixed")
    assert (config.process.weighting, config.process.times) == ("none", "auto")
    assert config.sample == SampleConfig("ddim", steps=50, spacing="trailing", eta=0.5)
    interval = Config.from_dict(
        json.loads(json.dumps(Config(sample=SampleConfig(guidance_interval=(0.2, 3))).to_dict()))
    )
    assert interval.sample.guidance_interval == (0.2, 3)


def test_configs_are_frozen():
    with pytest.raises(AttributeError):
        Config().train.lr = 1.0


def test_no_flag_has_two_meanings():
    """Flags carry no prefix, so the parts of a config may not share a name."""
    names = [
        f.name for part in (DataConfig, ProcessConfig, NetworkConfig, TrainConfig, SampleConfig) for f in fields(part)
    ]
    assert len(names) == len(set(names))
    assert {*names, "first_stage"} >= MUTABLE


DIT = NetworkConfig("dit", patch=4, depth=3, positions="sincos", registers=2)
OTHER = {
    "data": DataConfig((4, 5), 2, "pad", "red", "yes", "test", strict=True),
    "process": ProcessConfig(
        timesteps=500,
        schedule="cosine",
        zero_terminal_snr=True,
        prediction="v",
        times="importance",
        weighting="min_snr",
        objective="hybrid",
        variance="learned",
    ),
    "network": NetworkConfig(
        stem="haar",
        width=64,
        multipliers=(1, 2),
        blocks=3,
        attention=(0,),
        heads=2,
        dropout=0.2,
        embedding="ddpm",
        labels=False,
        text="wordllama",
        text_dim=256,
    ),
    "train": TrainConfig(
        9,
        2.0,
        None,
        64,
        8,
        "adam",
        1e-3,
        7,
        "cosine",
        0.1,
        2.0,
        5,
        0.2,
        "bf16",
        "no",
        "cuda",
        True,
        1,
        3.0,
        1,
        2,
        3,
        "skip",
        99,
        4.0,
        True,
        "project",
    ),
}


@pytest.mark.parametrize("part", OTHER)
def test_every_setting_that_weights_depend_on_is_compared(part):
    old = Config()
    changed = {line.split()[0] for line in changed_settings(old, replace(old, **{part: OTHER[part]}))}
    apart = {
        "diffusion",
        "budget",
        "optimizer",
        "backbone",
        "trained_guidance",
        *NETWORKS["dit"].settings,
        *(set(NETWORKS["unet2d"].settings) - set(NETWORKS["unet"].settings)),
    }  # have tests of their own
    settings = {f.name for f in fields(OTHER[part])} - apart
    for name in settings:
        assert getattr(OTHER[part], name) != getattr(getattr(old, part), name), f"this test leaves {name} as it is"
    assert changed == {"--" + name.replace("_", "-") for name in settings - MUTABLE}


def test_every_setting_of_a_dit_is_compared():
    old, new = (Config(network=one) for one in (NetworkConfig("dit"), DIT))
    assert changed_settings(old, new) == [
        "--patch 2 -> 4",
        "--depth 12 -> 3",
        "--positions rope -> sincos",
        "--registers 0 -> 2",
    ]
    assert "--backbone unet -> dit" in changed_settings(Config(), new)


def test_every_setting_of_a_unet2d_is_compared():
    new = NetworkConfig("unet2d", head_dim=8, groups=16, norm_eps=1e-6, downsample_padding=0)
    assert changed_settings(Config(network=NetworkConfig("unet2d")), Config(network=new)) == [
        "--head-dim None -> 8",
        "--groups 32 -> 16",
        "--norm-eps 1e-05 -> 1e-06",
        "--downsample-padding 1 -> 0",
    ]


@pytest.mark.parametrize("diffusion", ["edm", "flow"])
def test_another_diffusion_is_another_run(diffusion):
    new = Config(process=ProcessConfig(diffusion=diffusion, prediction="v"))
    assert changed_settings(Config(), new) == [f"--diffusion ddpm -> {diffusion}", "--prediction eps -> v"]


def test_how_to_sample_may_change():
    assert changed_settings(Config(), Config(sample=SampleConfig("heun", steps=3, spacing="karras"))) == []


def test_changes_are_said_as_flags():
    new = Config(train=TrainConfig(lr=1e-3), network=NetworkConfig(multipliers=(1, 2)))
    assert changed_settings(Config(), new) == ["--multipliers 1 2 2 2 -> 1 2", "--lr 0.0002 -> 0.001"]
