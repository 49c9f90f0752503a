"""The command line: verbs, flags from the dataclasses, one sentence for every mistake.

Exit codes: 0 done, 1 failed, 2 what was asked for is wrong, 130 Ctrl-C (143 SIGTERM, 129 SIGHUP) after saving.
"""

import io
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import pairwise
from typing import Any

from ..api import perform
from ..api import verify as every_check
from ..console import Console
from ..errors import InputError, JobError, Terminated, check_choice
from ..events import listening, say
from ..heap import keep_memory
from ..memory import is_out_of_memory
from ..requests import cache, check_data, edit, runs
from ..requests.evaluate import Compare, Evaluate, Quality, Report, TrainFeatures
from ..requests.sample import Sample
from ..requests.show import Show, Verify
from ..requests.train import Encode
from ..signals import interruption, unwind_on_sigterm
from ..spellings import OTHER_VERBS
from . import clock
from .cache import run_cache
from .first_page import first_page
from .output import is_first_to_say, unread_output_is_dropped
from .parsing import Line, second_word
from .runs import run_runs
from .train import train


def _performed(verb: str, kind: type[Any]) -> Callable[[list[str]], int]:
    """Run a verb by performing its request."""

    def run(argv: list[str]) -> int:
        perform(Line(verb, kind, argv).request())
        return 0

    return run


def verify(argv: list[str]) -> int:
    checks = every_check(Line("verify", Verify, argv).request().out)
    return 0 if all(check.passed for check in checks) else 1


def evaluate(argv: list[str]) -> int:
    word = second_word(argv, ("train-features", "bits", "loss"))
    if word == "train-features":
        return _performed("evaluate train-features", TrainFeatures)(argv[1:])
    if word:
        argv = [*argv[1:], f"--{word}"]
    other = any(word.split("=")[0] in ("--bits", "--loss") for word in argv)
    return _performed("evaluate", Evaluate if other else Quality)(argv)


def _of_two_words(
    verb: str, help_text: str, kinds: Mapping[str, type[Any]], do: Callable[[Any], object]
) -> Callable[[list[str]], int]:
    """Run a verb of two words, such as edit inpaint or runs list; alone it prints its help."""

    def run(argv: list[str]) -> int:
        if not argv or argv[0] in ("-h", "--help", "help"):
            print(help_text)
            return 0
        kind = check_choice(f"the word after {verb}", argv[0], kinds)
        do(Line(f"{verb} {kind}", kinds[kind], argv[1:]).request())
        return 0

    return run


def _said(lines: Callable[[Any], Iterable[str]]) -> Callable[[Any], None]:
    """Print each line of a verb's output as soon as it is known."""

    def do(request: Any) -> None:
        for line in lines(request):
            say(line)

    return do


VERBS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "encode": _performed("encode", Encode),
    "sample": _performed("sample", Sample),
    "edit": _of_two_words("edit", edit.HELP, edit.KINDS, perform),
    "runs": _of_two_words("runs", runs.HELP, runs.KINDS, _said(run_runs)),
    "cache": _of_two_words("cache", cache.HELP, cache.KINDS, _said(run_cache)),
    "show": _performed("show", Show),
    "data": _of_two_words("data", check_data.HELP, {"doctor": check_data.Doctor}, perform),
    "evaluate": evaluate,
    "compare": _performed("compare", Compare),
    "report": _performed("report", Report),
    "verify": verify,
}
RESULTS = {"sample", "edit", "data", "evaluate", "compare", "report"}  # interrupted, they say what is kept, if anything
COMPUTING = {"train", "encode", "sample", "edit", "data", "evaluate", "compare", "report"}  # they call networks


def known_cause(error: RuntimeError) -> str | None:
    """Explain an error in one sentence if its cause is known, else return None."""
    if "WORLD_SIZE" in os.environ and any(word in str(error) for word in ("gloo", "NCCL", "Connection")):
        return (
            "another process of this job has ended; torchrun begins again from the last checkpoint, "
            "where --max-restarts lets it"
        )
    if is_out_of_memory(error):
        return "out of memory; try train --micro-batch, or sample --batch, with fewer images"
    return None


@contextmanager
def silence_other_ranks() -> Iterator[None]:
    """Silence the output of every rank but 0; an error of another rank is printed when it ends."""
    if int(os.environ.get("RANK", "0")) == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def run_verb(arguments: list[str]) -> int:
    """Run a verb with its flags and return the exit code."""
    if any(not word and before != "--prompt" for before, word in pairwise(["", *arguments])):
        raise InputError(f"one of the words after bytepixels {arguments[0]} is empty")
    if (meant := OTHER_VERBS.get(arguments[0])) is not None:
        raise InputError(f"bytepixels has no verb {arguments[0]}; did you mean bytepixels {meant}?")
    verb = VERBS[check_choice("the verb", arguments[0], VERBS)]
    if arguments[0] in COMPUTING and not {"-h", "--help"} & set(arguments):
        keep_memory()
    with listening(Console()), silence_other_ranks(), unwind_on_sigterm():
        try:
            return verb(arguments[1:])
        except JobError as error:  # of all processes of a job alike: the first says it
            print(f"bytepixels: {error}", file=sys.stderr)
            return 1


def notes_of(error: BaseException | None) -> list[str]:
    """What an interruption says was kept; a second one that came while the first was handled has its notes."""
    if error is None:
        return []
    return getattr(error, "__notes__", None) or notes_of(error.__context__)


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
        sentence = f"bytepixels: {'--' if name in arguments else ''}{error}"
        if is_first_to_say(sentence):
            print(sentence, file=sys.stderr)
        return 2
    except (KeyboardInterrupt, ImportError) as error:
        interrupted = interruption(error)
        if interrupted is None:
            raise
        nothing = arguments[0] in RESULTS and os.environ.get("RANK", "0") == "0"
        kept = notes_of(interrupted) or (["nothing was kept"] if nothing else [])
        print("\nbytepixels: interrupted", *kept, sep=": ", file=sys.stderr)
        return 128 + (interrupted.signal if isinstance(interrupted, Terminated) else signal.SIGINT)
    except RuntimeError as error:
        if (cause := known_cause(error)) is None:
            raise
        print(f"bytepixels: {cause}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a folder that may not be written: the run is intact
        print(f"bytepixels: {error}", file=sys.stderr)
        return 1
