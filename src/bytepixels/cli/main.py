"""The command line: verbs, flags from the dataclasses, one sentence for every mistake.

Exit codes: 0 done, 1 failed, 2 what was asked for is wrong, 130 Ctrl-C (143 SIGTERM, 129 SIGHUP) after saving.
"""

import io
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import tyro

from ..choices import SPLITS
from ..config.data import DataConfig
from ..config.network import foreign_setting, settings_of_others
from ..config.presets import autoencoder_config, preset_with
from ..config.run import Config
from ..config.sampling import SampleConfig
from ..errors import InputError, Terminated, check_choice
from ..events import listening
from ..requests.sample import Sample
from ..requests.show import Show, Verify
from ..requests.train import Encode, Train, TrainAutoencoder, TrainLatent
from ..runs.run_directory import is_run, open_run
from ..spellings import OTHER_VERBS
from ..wording import many
from .console import Console
from .first_page import first_page
from .output import unread_output_is_dropped
from .parsing import Line
from .signals import interruption, stop_on_signals, unwind_on_sigterm

began = time.monotonic()  # when the command did: a budget of time counts from here


def train(argv: list[str]) -> int:
    if argv[:1] in (["autoencoder"], ["latent"]):
        return (train_autoencoder if argv[0] == "autoencoder" else train_latent)(argv[1:])
    line = Line("train", Train, argv)
    backbone = line.get("--backbone")

    def place(preset: str) -> Path:
        names = (_stem(line), preset, "" if backbone in (None, "unet") else backbone)
        return Path(line.get("--run") or Path("runs") / "-".join(name for name in names if name))

    begun = _config_from(line)
    path, said = place(line.get("--preset") or (begun.preset if begun else "small")), ""
    request = line.request(Train(source=tyro.MISSING, config=_model_default(line, path, begun)))
    if not is_run(path):
        fresh, said = _from_data(line, request.source, request.config)
        path = place(fresh.preset)
        request = line.request(Train(source=tyro.MISSING, config=_model_default(line, path, fresh)))
    if said and not is_run(path):
        print(said)
    return _trained(request.source, request.config, path, request.profile, began, request.origin)


def _config_from(line: Line) -> Config | None:
    """The settings of the run that --from names, if it is given. InputError for flags that contradict it."""
    if (origin := line.get("--from")) is None or line.help:
        return None
    from ..training.pretrained import config_from, open_origin

    config = config_from(open_origin(Path(origin))[0])
    for flag, own in (("--preset", config.preset), ("--backbone", config.network.backbone)):
        if line.get(flag) not in (None, own):
            raise InputError(f"--from {origin} has {flag} {own}, got {line.get(flag)}; leave the flag out")
    return config


def _from_data(line: Line, source: str, config: Config) -> tuple[Config, str]:
    """The defaults of a new run on these images: the size, the channels and, of a model, the preset that suit them;
    and a line that says so. `config`: what was asked for."""
    from ..hardware import best_device
    from ..training.defaults import choice_sentence, choose, headers_of, multiple_of, sized

    asked = replace(
        config.data,
        size=config.data.size if "--size" in line.given else None,
        channels=config.data.channels if "--channels" in line.given else None,
    )
    check_choice("--split", asked.split, SPLITS)
    stage = Path(config.first_stage) if config.first_stage and asked.size is None else None
    if stage is not None and is_run(stage):
        asked = replace(asked, size=open_run(stage).shape[1:])
    device, seen = best_device(config.train.device), headers_of(source, asked.split)
    multiple, preset = multiple_of(config), line.get("--preset")
    if config.autoencoder is not None or "--from" in line.given:
        fresh, preset = sized(config, seen, asked, device), config.preset
    else:
        own = multiple if {"--multipliers", "--patch", "--stem"} & set(line.given) else None
        fresh = choose(seen, asked, preset, device, config.network.backbone, own)
        multiple = own or multiple_of(fresh)
    if stage is not None and asked.size is not None:
        return fresh, f"Training at {asked.size[0]} x {asked.size[1]}, the size that {stage} was trained at"
    return fresh, choice_sentence(fresh, seen, asked, preset, multiple)


def _model_default(line: Line, path: Path, fresh: Config | None = None) -> Config:
    """What the flags of a model at `path` are by default; `fresh`, or the preset's, where no run is there. InputError
    for flags that do not go with it."""
    preset, backbone = line.get("--preset"), line.get("--backbone")
    if is_run(path):  # its own settings are the defaults, so that no flag need be repeated
        default = open_run(path).config
        if default.autoencoder is not None:
            raise InputError(f"{path} is an autoencoder: bytepixels train autoencoder goes on with it")
        for flag, asked, own in (
            ("--preset", preset, default.preset),
            ("--backbone", backbone, default.network.backbone),
        ):
            if asked not in (None, own):
                raise InputError(f"{path} was begun with {flag} {own}, got {asked}; choose another --run")
    else:
        default = fresh or preset_with(preset or "small", backbone or "unet")
        if line.help:  # which size a new run has, its images decide
            default = replace(default, data=replace(default.data, size=None))
    for name in settings_of_others(default.network.backbone):
        if f"--{name}" in line.given:
            raise InputError(foreign_setting(name, default.network.backbone))
    return _one_budget(line, default)


def _one_budget(line: Line, default: Config) -> Config:
    """If a budget flag is given, drop the default epochs and time budget. InputError for several of them."""
    given = [flag for flag in BUDGETS if flag in line.given]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} say the same thing in different units; give one of them")
    return replace(default, train=replace(default.train, epochs=None, budget=None)) if given else default


def train_autoencoder(argv: list[str]) -> int:
    line = Line("train autoencoder", TrainAutoencoder, argv)
    path = Path(line.get("--run") or Path("runs") / f"{_stem(line)}-autoencoder")
    default = open_run(path).config if is_run(path) else autoencoder_config()
    if (autoencoder := default.autoencoder) is None:
        raise InputError(f"{path} draws pictures, it is no autoencoder; choose another --run")
    default = _one_budget(line, default)
    request = line.request(TrainAutoencoder(tyro.MISSING, None, 0, autoencoder, default.data, default.train))
    config = replace(default, data=request.data, autoencoder=request.autoencoder, train=request.train)
    if not is_run(path):
        config = _sized(line, request.source, config)
    return _trained(request.source, config, path, request.profile, began)


def _sized(line: Line, source: str, config: Config) -> Config:
    """The config of a new autoencoder, with the size and channels that suit its images, which is said."""
    fresh, said = _from_data(line, source, config)
    if said:
        print(said)
    return replace(config, data=replace(config.data, size=fresh.data.size, channels=fresh.data.channels))


def train_latent(argv: list[str]) -> int:
    line = Line("train latent", TrainLatent, argv)
    path = Path(line.get("--run") or Path("runs") / f"{_stem(line)}-latent")
    own = path.with_name(f"{path.name}-autoencoder")
    first = open_run(own).config if is_run(own) else autoencoder_config()
    if first.autoencoder is None:
        raise InputError(f"{own} draws pictures, and the autoencoder of {path} would be there; choose another --run")
    second = _model_default(line, path)
    if is_run(own) and not is_run(path):
        second = replace(second, data=first.data)
    request = line.request(TrainLatent(tyro.MISSING, stage=first.autoencoder, config=replace(second, first_stage=None)))
    if not is_run(own) and not is_run(path):
        stage = replace(first, data=request.config.data, autoencoder=request.stage, train=request.config.train)
        data = _sized(line, request.source, stage).data
        request = replace(request, config=replace(request.config, data=data))
    from ..training.two_stages import split

    divided = not is_run(path) or any(flag in line.given for flag in BUDGETS)  # else each has its share already
    for config, where in split(request, first, own, path, divided):
        if code := _trained(request.source, config, where, 0, None if where == path else began):
            return code
    return 0


def _trained(
    source: str, config: Config, path: Path, profile: int, began: float | None, origin: Path | None = None
) -> int:
    """The exit code of a training whose time counts from `began` on, or from now."""
    from ..training.nonfinite import TrainingError
    from ..training.session import train as train_verb

    try:
        stopped_by = train_verb(source, config, path, profile, began, origin, stop_on_signals)
        return 128 + stopped_by if stopped_by else 0
    except TrainingError as error:
        print(f"bytepixels: {error}", file=sys.stderr)
        return 1


def sample(argv: list[str]) -> int:
    request = Line("sample", Sample, argv).request()
    from ..requests.sample import SampleRequest
    from ..sampling.compiled import CompileError
    from ..sampling.output import copy_to, png_of, sample_run

    asked = {f.name: getattr(request, f.name) for f in fields(SampleConfig)}
    drawing = SampleRequest(**{f.name: getattr(request, f.name) for f in fields(SampleRequest)})
    if png := png_of(request.out):
        drawing = replace(drawing, out=None)
    try:
        out = sample_run(request.run, {name: value for name, value in asked.items() if value is not None}, drawing)
    except CompileError as error:
        print(f"bytepixels: {error}", file=sys.stderr)
        return 1
    if png and os.environ.get("RANK", "0") == "0":
        print(copy_to(png, out))
    else:
        print(f"{many(request.n, 'image')}, grid.png and manifest.json: {out}")
    return 0


def encode(argv: list[str]) -> int:
    request = Line("encode", Encode, argv).request()
    from ..training.two_stages import encode as encode_verb

    for line in encode_verb(request):
        print(line)
    return 0


def show(argv: list[str]) -> int:
    request = Line("show", Show, argv).request()
    from ..report.forward_process import show as show_verb
    from ..report.forward_process import shown_size
    from ..runs.packing import pack_with_progress

    size = request.size or shown_size(request.source, request.n, request.columns)
    packed = pack_with_progress(request.source, DataConfig(size=size, channels=request.channels))
    for path in show_verb(packed, request.out, request.n, request.columns, request.timesteps):
        print(path)
    return 0


def verify(argv: list[str]) -> int:
    request = Line("verify", Verify, argv).request()
    from ..verification.table import verify as verify_verb

    return 0 if verify_verb(request.out) else 1


def evaluate(argv: list[str]) -> int:
    from ..requests.evaluate import Evaluate, Quality, TrainFeatures

    if argv[:1] == ["train-features"]:
        features = Line("evaluate train-features", TrainFeatures, argv[1:]).request()
        from ..evaluation.train_classifier import train_features

        train_features(features)
    elif any(word.split("=")[0] in ("--bits", "--loss") for word in argv):
        measuring = Line("evaluate", Evaluate, argv).request()
        from ..evaluation.likelihood import evaluate as evaluate_verb

        evaluate_verb(measuring)
    else:
        request = Line("evaluate", Quality, argv).request()
        from ..evaluation.reconstruction import evaluate_reconstruction
        from ..evaluation.sample_quality import evaluate_quality

        if (run := open_run(request.run)).config.autoencoder is not None:
            evaluate_reconstruction(run, request)
        else:
            evaluate_quality(request)
    return 0


def compare(argv: list[str]) -> int:
    from ..requests.evaluate import Compare

    request = Line("compare", Compare, argv).request()
    from ..evaluation.compare_samplers import compare as compare_verb

    compare_verb(request)
    return 0


def report(argv: list[str]) -> int:
    from ..requests.evaluate import Report

    request = Line("report", Report, argv).request()
    from ..report.report import report as report_verb

    print(report_verb(request))
    return 0


def _second_word(verb: str, argv: list[str], help_text: str, kinds: Mapping[str, type[Any]]) -> Any:
    """The request of a verb of several words, such as runs list; None where its help was asked for, and is printed."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(help_text)
        return None
    kind = check_choice(f"the word after {verb}", argv[0], kinds)
    return Line(f"{verb} {kind}", kinds[kind], argv[1:]).request()


def edit(argv: list[str]) -> int:
    from ..requests.edit import HELP as EDIT_HELP
    from ..requests.edit import KINDS

    if (request := _second_word("edit", argv, EDIT_HELP, KINDS)) is None:
        return 0
    from ..sampling.edit import edit as edit_verb
    from ..sampling.output import copy_to, png_of

    png = png_of(request.out)
    out, said = edit_verb(replace(request, out=None) if png else request)
    print(*said, copy_to(png, out) if png else f"images, grid.png and manifest.json: {out}", sep="\n")
    return 0


def runs(argv: list[str]) -> int:
    from ..requests.runs import HELP as RUNS_HELP
    from ..requests.runs import KINDS

    if (request := _second_word("runs", argv, RUNS_HELP, KINDS)) is None:
        return 0
    from .runs import run_runs

    for line in run_runs(request):
        print(line)
    return 0


def cache(argv: list[str]) -> int:
    from ..requests.cache import HELP as CACHE_HELP
    from ..requests.cache import KINDS

    if (request := _second_word("cache", argv, CACHE_HELP, KINDS)) is None:
        return 0
    from .cache import run_cache

    for line in run_cache(request):
        print(line)
    return 0


def data(argv: list[str]) -> int:
    from ..requests.check_data import HELP as DATA_HELP
    from ..requests.check_data import Doctor

    if not argv or argv[0] in ("-h", "--help", "help"):
        print(DATA_HELP)
        return 0
    check_choice("the word after data", argv[0], ("doctor",))
    flags = Line("data doctor", Doctor, argv[1:]).request()
    from ..training.autotune.preflight import doctor

    doctor(flags)
    return 0


VERBS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "encode": encode,
    "sample": sample,
    "edit": edit,
    "runs": runs,
    "cache": cache,
    "show": show,
    "data": data,
    "evaluate": evaluate,
    "compare": compare,
    "report": report,
    "verify": verify,
}
BUDGETS = ("--images", "--epochs", "--budget")
RESULTS = {
    "sample",
    "edit",
    "data",
    "evaluate",
    "compare",
    "report",
}  # interrupted, they note what is kept, if anything
COMPUTING = {"train", "encode", "sample", "edit", "data", "evaluate", "compare", "report"}  # they call networks


def _stem(line: Line) -> str:
    """ "pictures/cats.tar.xz" -> "cats", "train-{000..127}.tar" -> "train"."""
    source = line.words[0] if line.words else ""
    return re.split(r"\.|[-_]?\{", Path(source).absolute().name)[0] or "pictures"


def foreseen(error: RuntimeError) -> str | None:
    """What torch's error means, in one sentence, where it is none of ours; None for any other."""
    if "WORLD_SIZE" in os.environ and any(word in str(error) for word in ("gloo", "NCCL", "Connection")):
        return (
            "another process of this job has ended; torchrun begins again from the last checkpoint, "
            "where --max-restarts lets it"
        )
    from ..training.micro_batch import is_out_of_memory

    if is_out_of_memory(error):
        return "out of memory; try train --micro-batch, or sample --batch, with fewer pictures"
    return None


@contextmanager
def only_the_first_speaks() -> Iterator[None]:
    """Of the processes of one torchrun job the first prints; what another says is said when it breaks."""
    if int(os.environ.get("RANK", "0")) == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def run_verb(arguments: list[str]) -> int:
    """The exit code of a verb and its flags."""
    if any(not word and before != "--prompt" for before, word in pairwise(["", *arguments])):
        raise InputError(f"one of the words after bytepixels {arguments[0]} is empty")
    if (meant := OTHER_VERBS.get(arguments[0])) is not None:
        raise InputError(f"bytepixels has no verb {arguments[0]}; did you mean bytepixels {meant}?")
    verb = VERBS[check_choice("the verb", arguments[0], VERBS)]
    if arguments[0] in COMPUTING and not {"-h", "--help"} & set(arguments):
        from ..heap import keep_memory

        keep_memory()
    with listening(Console()), only_the_first_speaks(), unwind_on_sigterm():
        return verb(arguments[1:])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    global began
    began = began if argv is None else time.monotonic()
    with unread_output_is_dropped():
        return _main(list(sys.argv[1:] if argv is None else argv))


def _main(arguments: list[str]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names may hold what the terminal's encoding does not
        sys.stdout.reconfigure(errors="backslashreplace")
    if (page := first_page(arguments)) is not None:
        print(page)
        return 0
    try:
        return run_verb(arguments)
    except InputError as error:
        name = f"--{str(error).split()[0]}"  # a setting of the core that was a flag here
        print(f"bytepixels: {'--' if name in arguments else ''}{error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, ImportError) as error:
        interrupted = interruption(error)
        if interrupted is None:
            raise
        nothing = arguments[0] in RESULTS and os.environ.get("RANK", "0") == "0"
        kept = getattr(interrupted, "__notes__", ["nothing was kept"] if nothing else [])
        print("\nbytepixels: interrupted", *kept, sep=": ", file=sys.stderr)
        return 128 + (interrupted.signal if isinstance(interrupted, Terminated) else signal.SIGINT)
    except RuntimeError as error:
        if (cause := foreseen(error)) is None:
            raise
        print(f"bytepixels: {cause}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a folder that may not be written: the run is intact
        print(f"bytepixels: {error}", file=sys.stderr)
        return 1
