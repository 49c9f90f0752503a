"""The verbs train, train autoencoder and train latent, whose defaults depend on the images and on the run."""

from dataclasses import replace
from typing import Any

import tyro

from ..api import fit, planned, planned_autoencoder, planned_latent
from ..config.autoencoder import AutoencoderConfig
from ..config.run import Config
from ..events import say
from ..requests.train import Train, TrainAutoencoder, TrainLatent
from . import clock
from .parsing import Line


def train(line: Line[Train]) -> int:
    """Train a model."""
    requests: list[Train] = []

    def configured(default: Config) -> Config:
        requests.append(line.request(Train(source=tyro.MISSING, config=default)))
        return requests[-1].config

    config, path, said = planned(line, _source(line), configured)
    request = requests[-1]
    _say(said)
    return _exit(fit(request.source, config, path, profile=request.profile, origin=request.origin, began=clock.began))


def train_autoencoder(line: Line[TrainAutoencoder]) -> int:
    """Train the first stage of latent diffusion."""
    requests: list[TrainAutoencoder] = []

    def configured(default: Config) -> Config:
        own: Any = default.autoencoder
        requests.append(line.request(TrainAutoencoder(tyro.MISSING, None, 0, own, default.data, default.train)))
        request = requests[-1]
        return replace(default, data=request.data, autoencoder=request.autoencoder, train=request.train)

    config, path, said = planned_autoencoder(line, _source(line), configured)
    _say(said)
    return _exit(fit(requests[-1].source, config, path, profile=requests[-1].profile, began=clock.began))


def train_latent(line: Line[TrainLatent]) -> int:
    """Train both stages of latent diffusion."""

    def configured(stage: AutoencoderConfig, model: Config) -> tuple[AutoencoderConfig, Config, float]:
        request = line.request(TrainLatent(tyro.MISSING, stage=stage, config=model))
        return request.stage, request.config, request.share

    both, said = planned_latent(line, _source(line), configured)
    _say(said)
    for number, (config, path) in enumerate(both):
        if code := _exit(fit(_source(line), config, path, began=None if number else clock.began)):
            return code
    return 0


def _source(line: Line) -> str:
    return line.words[0] if line.words else ""


def _say(said: str) -> None:
    if said:
        say(said)


def _exit(stopped_by: int) -> int:
    """The exit code of a training that this signal stopped; 0 if none did."""
    return 128 + stopped_by if stopped_by else 0
