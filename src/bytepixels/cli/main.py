"""The command line: verbs, flags from the dataclasses, one sentence for every mistake.

Exit codes: 0 done, 1 failed, 2 what was asked for is wrong, 130 Ctrl-C (143 SIGTERM, 129 SIGHUP) after saving.
"""

import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..api import perform, verify
from ..console import Console
from ..errors import InputError, JobError, Terminated, check_choice
from ..events import listening
from ..heap import keep_memory
from ..memory import is_out_of_memory
from ..signals import interruption, unwind_on_sigterm
from ..spellings import OTHER_VERBS
from ..verbs import VERBS, loaded, page_of
from . import clock
from .completion import completion
from .first_page import first_page
from .output import is_first_to_say, unread_output_is_dropped
from .parsing import Line


def performed(line: Line[Any]) -> int:
    """Run a verb by performing its request."""
    perform(line.request())
    return 0


def verified(line: Line[Any]) -> int:
    """Run verify, whose exit code says whether all is as it should be."""
    return 0 if all(check.passed for check in verify(line.request().out)) else 1


def verb_of(arguments: list[str]) -> tuple[str, list[str]]:
    """The verb that a line names by its first word or two, and what follows. InputError where there is none.

    A folder or a file of the second word's name is meant where no other word follows: `train latent` trains on the
    folder latent.
    """
    first, second = arguments[0], "".join(arguments[1:2])
    if f"{first} {second}" in VERBS:
        follows = any(not one.startswith("-") for one in arguments[2:3])
        if first not in VERBS or follows or not Path(second).exists():
            return f"{first} {second}", arguments[2:]
    if first in VERBS:
        near = get_close_matches(second, [name.split()[1] for name in VERBS if name.startswith(f"{first} ")], n=1)
        words = [word for word in arguments[1:3] if not word.startswith("-")]
        if near and len(words) == 2 and not Path(second).exists():
            raise InputError(f"bytepixels has no verb {first} {second}; did you mean bytepixels {first} {near[0]}?")
        flags = {word.split("=")[0] for word in arguments}
        named = [name for name, verb in VERBS.items() if name.startswith(f"{first} ") and flags & set(verb.given)]
        return (named or [first])[0], arguments[1:]
    check_choice("the verb", first, dict.fromkeys(name.split()[0] for name in VERBS))
    check_choice(f"the word after {first}", second, [name.split()[1] for name in VERBS if name.startswith(f"{first} ")])
    raise AssertionError(arguments)  # one of them has said why


RESULTS = {"sample", "edit", "data", "evaluate", "compare", "report"}  # interrupted, they say what is kept, if anything
COMPUTING = {"train", "encode", *RESULTS}  # they call networks


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
    if arguments[0] not in VERBS and (len(arguments) == 1 or arguments[1] in ("-h", "--help", "help")):
        check_choice("the verb", arguments[0], dict.fromkeys(name.split()[0] for name in VERBS))
        print(page_of(arguments[0]))
        return 0
    name, words = verb_of(arguments)
    verb = VERBS[name]
    if arguments[0] in COMPUTING and not {"-h", "--help"} & set(arguments):
        keep_memory()
    with listening(Console()), silence_other_ranks(), unwind_on_sigterm():
        try:
            return int(loaded(verb.command)(Line(name, loaded(verb.request), [*words, *verb.given])))
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
        if arguments[0] == "--completion":
            print(completion("".join(arguments[1:2])), end="")
            return 0
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
