"""The command line: verbs, flags from the dataclasses, one sentence for every mistake.

Exit codes: 0 done, 1 failed, 2 what was asked for is wrong, 130 Ctrl-C (143 SIGTERM) after saving.
"""

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro
from tyro.conf import OmitArgPrefixes, Positional, arg

from .errors import InputError, check_choice
from .presets import PRESETS
from .runs.config import Config, DataConfig, SampleConfig
from .runs.directory import is_run, open_run

HELP = """\
bytepixels: diffusion models from scratch. From a folder of pictures to a trained model, and on to new pictures.

  bytepixels train SOURCE        train on a folder, zip, tar, .npz, or digits | cifar10 | mnist | fashion-mnist
  bytepixels sample RUN          draw new pictures from a trained run
  bytepixels show SOURCE         see what the forward process does to your pictures

Begin with:

  bytepixels train digits --preset digits        two or three minutes on two cores, no download
  bytepixels sample runs/digits-digits -n 64

The same train command again goes on where it stopped; Ctrl-C saves first.
Every verb explains itself: bytepixels train --help
"""


@dataclass(frozen=True)
class Train:
    """Train a model on the pictures of SOURCE, or go on with a run that was interrupted (same command again)."""

    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """A folder (one subfolder per class, or flat), a .zip or .tar of one, an .npz or .npy, or a name: digits, cifar10,
    mnist, fashion-mnist."""
    run: Path | None = None
    """Where the run is kept. Default: runs/SOURCE-PRESET."""
    config: OmitArgPrefixes[Config] = field(default_factory=Config)


@dataclass(frozen=True)
class Sample:
    """Draw new pictures from a trained run: seed-K.png each, grid.png and manifest.json."""

    run: Positional[Annotated[Path, arg(metavar="RUN")]]
    """The run's directory."""
    n: Annotated[int, arg(aliases=["-n"])] = 16
    """How many pictures."""
    seed: int = 0
    """Of the first picture; the next have the seeds that follow. A picture depends on its seed alone."""
    sampler: str | None = None
    """ddpm, ddim, heun or dpmpp_2m. Default: the run's own, like all that follow."""
    steps: int | None = None
    """Steps from noise to picture."""
    spacing: str | None = None
    """trailing, leading, linspace, quadratic, log_snr or karras."""
    eta: float | None = None
    """Fresh noise in ddim, 0 (none) to 1 (as much as ddpm)."""
    guidance: float | None = None
    """How strongly the label pulls; 1 is no guidance."""
    clip: bool | None = None
    """Keep each estimate within the range of pixels."""
    label: str | None = None
    """A class, by name. Default: the classes in turn."""
    out: Path | None = None
    """Where the pictures go. Default: RUN/samples/SAMPLER-STEPS-seed-SEED."""
    batch: int = 64
    """Pictures at a time; it changes the speed, not the pictures."""
    gif: bool = False
    """Also write denoising.gif."""
    weights: Literal["ema", "model"] = "ema"
    """ema (the average) or model (the raw weights)."""
    checkpoint: str | None = None
    """A checkpoint's name. Default: the newest."""
    device: str = "auto"
    """cpu, cuda, mps; auto takes the best there is."""


@dataclass(frozen=True)
class Show:
    """Draw the forward process x_0 .. x_T on your own pictures for every schedule, and the schedules' curves."""

    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """As for train."""
    out: Path = Path("show")
    """Where the pictures go."""
    n: Annotated[int, arg(aliases=["-n"])] = 4
    """How many pictures."""
    columns: int = 11
    """States in a strip, the clean picture included."""
    timesteps: int = 1000
    """T, the number of noise levels."""
    size: tuple[int, int] | None = None
    """Height and width. Default: the data's own."""
    channels: int | None = None
    """1 grey, 3 RGB, 4 RGBA. Default: the data's own."""


def train(argv: list[str]) -> int:
    source, run, preset = _peek(argv)
    path = run or Path("runs") / f"{_stem(source)}-{preset or 'small'}"
    if is_run(path):  # its own settings are the defaults, so that no flag need be repeated
        default = open_run(path).config
        if preset not in (None, default.preset):
            raise InputError(f"{path} was begun with --preset {default.preset}, got {preset}; choose another --run")
    else:
        default = PRESETS[check_choice("--preset", preset or "small", PRESETS)]()
    request = _parse("train", Train, argv, Train(source=tyro.MISSING, config=default))
    if request.source != source:
        raise InputError(f"SOURCE comes first: bytepixels train {request.source} ...")
    from .verbs.train import train as train_verb
    from .verbs.trainer import TrainingError

    try:
        return train_verb(request.source, request.config, path)
    except TrainingError as error:
        print(f"bytepixels: {error}", file=sys.stderr)
        return 1


def sample(argv: list[str]) -> int:
    request = _parse("sample", Sample, argv)
    from .verbs.sample import SampleRequest, sample_run

    asked = {f.name: getattr(request, f.name) for f in fields(SampleConfig)}
    drawing = SampleRequest(**{f.name: getattr(request, f.name) for f in fields(SampleRequest)})
    out = sample_run(request.run, {name: value for name, value in asked.items() if value is not None}, drawing)
    print(f"{request.n} pictures, grid.png and manifest.json: {out}")
    return 0


def show(argv: list[str]) -> int:
    request = _parse("show", Show, argv)
    from .verbs.show import show as show_verb
    from .verbs.train import pack_with_progress

    packed = pack_with_progress(request.source, DataConfig(size=request.size, channels=request.channels))
    for path in show_verb(packed, request.out, request.n, request.columns, request.timesteps):
        print(path)
    return 0


VERBS: dict[str, Callable[[list[str]], int]] = {"train": train, "sample": sample, "show": show}

Request = TypeVar("Request")


def _parse(verb: str, kind: type[Request], argv: list[str], default: Request | None = None) -> Request:
    """The flags of one verb. A value out of range is our own sentence; tyro explains the rest and exits with 2."""
    extra = {} if default is None else {"default": default}
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(kind, prog=f"bytepixels {verb}", args=argv, use_underscores=False, **extra)  # type: ignore[call-overload]
    except SystemExit as stop:
        error: BaseException | None = stop
        while error is not None and not isinstance(error, InputError):
            error = error.__cause__ or error.__context__
        if error is not None:
            raise error from None
        print(said.getvalue(), end="", file=sys.stderr)
        raise


def _peek(argv: list[str]) -> tuple[str, Path | None, str | None]:
    """SOURCE, --run and --preset, which decide the other flags' defaults."""
    parser = argparse.ArgumentParser(
        prog="bytepixels train", usage="bytepixels train SOURCE [OPTIONS]", add_help=False, allow_abbrev=False
    )
    parser.add_argument("source", nargs="?", default="")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--preset")
    known, _ = parser.parse_known_args(argv)
    return known.source, known.run, known.preset


def _stem(source: str) -> str:
    """ "pictures/cats.tar.xz" -> "cats"."""
    return Path(source).absolute().name.split(".")[0] or "pictures"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP)
        return 0
    try:
        if arguments[0] == "--version":
            from . import __version__

            print(f"bytepixels {__version__}")
            return 0
        verb = VERBS[check_choice("the verb", arguments[0], VERBS)]
        return verb(arguments[1:])
    except InputError as error:
        print(f"bytepixels: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbytepixels: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except RuntimeError as error:
        if "out of memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        print(
            "bytepixels: out of memory; try train --micro-batch, or sample --batch, with fewer pictures",
            file=sys.stderr,
        )
        return 1
    except OSError as error:  # a full disk, a folder that may not be written: the run is intact
        print(f"bytepixels: {error}", file=sys.stderr)
        return 1
