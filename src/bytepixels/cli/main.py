"""The command line: verbs, flags from the dataclasses, one sentence for every mistake.

Exit codes: 0 done, 1 failed, 2 what was asked for is wrong, 130 Ctrl-C (143 SIGTERM, 129 SIGHUP) after saving.
"""

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

from ..config.data import DataConfig
from ..config.sampling import SampleConfig
from ..console import Console
from ..errors import InputError, Terminated, check_choice
from ..events import listening
from ..requests.sample import Sample
from ..requests.show import Show, Verify
from ..requests.train import Encode
from ..runs.run_directory import open_run
from ..signals import interruption, unwind_on_sigterm
from ..spellings import OTHER_VERBS
from ..wording import many
from . import clock
from .first_page import first_page
from .output import unread_output_is_dropped
from .parsing import Line
from .train import train


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
    out, said, _ = edit_verb(replace(request, out=None) if png else request)
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
RESULTS = {"sample", "edit", "data", "evaluate", "compare", "report"}  # interrupted, they say what is kept, if anything
COMPUTING = {"train", "encode", "sample", "edit", "data", "evaluate", "compare", "report"}  # they call networks


def foreseen(error: RuntimeError) -> str | None:
    """What torch's error means, in one sentence, where it is none of ours; None for any other."""
    if "WORLD_SIZE" in os.environ and any(word in str(error) for word in ("gloo", "NCCL", "Connection")):
        return (
            "another process of this job has ended; torchrun begins again from the last checkpoint, "
            "where --max-restarts lets it"
        )
    from ..training.micro_batch import is_out_of_memory

    if is_out_of_memory(error):
        return "out of memory; try train --micro-batch, or sample --batch, with fewer images"
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
    if argv is not None:
        clock.restart()
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
