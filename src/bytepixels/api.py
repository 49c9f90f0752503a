"""The door from Python: train, and a Run to draw from, edit and measure with. The command line runs the same code.

    import bytepixels as bp

    run = bp.train("my-images/", images="500k")        # a live line; the same call goes on where it was stopped
    run = bp.Run.open("runs/my-images-small")           # or the name of a model that comes along: "digits"
    images = run.sample(16, seed=7, label="cat", guidance=2)   # uint8 [16, C, H, W]

Settings are named as the flags of the command line are, with _ for -: images="500k", lr=1e-3, size=64, labels=False.
What is said on the way is drawn in the terminal, or goes to whoever listens (`bytepixels.events.listening`).
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from queue import Queue
from typing import Any, TypeVar

import torch
from torch import Tensor

from .config.run import Config, with_settings
from .config.sampling import SampleConfig
from .console import Console
from .data.sources.in_memory import source_of
from .distributed.process_group import join
from .errors import check_choice
from .events import Event, heard, listening, say
from .requests.edit import EditFlags, Inpaint, Interpolate, Invert, Vary
from .requests.evaluate import Compare, Quality, Report
from .requests.sample import SampleRequest
from .runs.models import model_names as model_names
from .runs.overview import look_at, read_log
from .runs.run_directory import open_run
from .signals import stop_on_signals
from .stopping import Stop
from .training.plan import planned

T = TypeVar("T")
Source = Any  # a path, a name, or images: see bytepixels.data.sources.in_memory.source_of


def train(
    source: Source,
    run: str | Path | None = None,
    *,
    origin: str | Path | None = None,
    stop: Stop | None = None,
    **settings: Any,
) -> "Run":
    """Train a model on `source`, or go on with the run that is there; returns the run when it is done or stopped.

    source: a folder, an archive, a name such as "digits", or images: an array, a tensor, PIL images, a data set.
    run: its folder; by default runs/SOURCE-PRESET. origin: a run whose averaged weights a new one begins with.
    stop: `stop.ask()`, from any thread, has it save and return; so has Ctrl-C in the main thread.
    settings: any flag of `bytepixels train`, by name. Raises InputError for what does not go together.
    """
    from .training.session import train as session

    begun = {name: str(value) for name, value in (("run", run), ("from", origin)) if value is not None}
    with _shown():
        place = source_of(source)
        config, path, said = planned(_Keywords(settings | begun), place, lambda default: _with(default, settings))
        if said:
            say(said)
        session(place, config, path, origin=None if origin is None else Path(origin), stopping=_stopping(stop))
    return Run.open(path)


class Run:
    """A trained run, or a model that comes along: what it can draw, edit and be measured by."""

    def __init__(self, path: str | Path):
        """path: the folder of a run, or the name of a model (`model_names()`). InputError where it is none."""
        self.directory = open_run(Path(path))
        self.path = self.directory.path

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """The run at `path`, or the model of that name."""
        return cls(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def config(self) -> Config:
        """Its settings."""
        return self.directory.config

    @property
    def classes(self) -> list[str]:
        """The names of its classes; [] where it knows none."""
        return self.directory.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of its images."""
        return self.directory.shape

    @property
    def log(self) -> list[dict[str, Any]]:
        """Its log: a record of loss, learning rate and images seen every few seconds."""
        return list(read_log(self.path))

    @property
    def finished(self) -> bool:
        """Whether it has seen its budget."""
        return look_at(self.path, thorough=False).finished

    def sample(self, n: int = 16, *, out: str | Path | None = None, **settings: Any) -> Tensor:
        """Draw n images, uint8 [n, C, H, W], each a function of its seed.

        out: a folder to write them to as well, with grid.png and manifest.json.
        settings: any flag of `bytepixels sample`: seed, label, prompt, sampler, steps, guidance, weak, batch ...
        """
        from .sampling.draw import Drawing
        from .sampling.output import draw_to

        own, names = {f.name for f in fields(SampleRequest)} - {"n", "out"}, {f.name for f in fields(SampleConfig)}
        _check_names(settings, own | names)
        asked = {name: value for name, value in settings.items() if name in own}
        if asked.get("weak") is not None:
            asked["weak"] = Path(asked["weak"])
        request = SampleRequest(n=n, out=None if out is None else Path(out), **asked)
        overrides = {name: value for name, value in settings.items() if name in names}
        with _shown():
            drawing = Drawing.prepared(self.path, overrides, request)
            if request.out is not None:
                return torch.cat(list(draw_to(request.out, drawing)))
            with join(drawing.device) as world:
                return torch.cat([images for _, images in drawing.chosen().batches(world, [])])

    def inpaint(self, picture: str | Path, mask: str | Path, **settings: Any) -> Tensor:
        """Paint anew what is white in `mask`: uint8 [n, C, H, W]. settings: flags of `bytepixels edit inpaint`."""
        return self._edit(Inpaint, {"picture": picture, "mask": mask}, settings)

    def vary(self, picture: str | Path, **settings: Any) -> Tensor:
        """Other images like this one: uint8 [n, C, H, W]. settings: strength, n, seed and others of `edit vary`."""
        return self._edit(Vary, {"picture": picture}, settings)

    def interpolate(self, a: str | Path | int, b: str | Path | int, **settings: Any) -> Tensor:
        """From one image, or seed, to another: uint8 [n, C, H, W]. settings: flags of `edit interpolate`."""
        return self._edit(Interpolate, {"a": str(a), "b": str(b)}, settings)

    def invert(self, picture: str | Path, **settings: Any) -> Tensor:
        """The image that the noise of this one becomes, uint8 [n, C, H, W]. settings: flags of `edit invert`."""
        return self._edit(Invert, {"picture": picture}, settings)

    def evaluate(self, **settings: Any) -> dict[str, Any]:
        """How good its samples are: distances with their floor and scale, copies, drift; the record in eval.jsonl.

        settings: flags of `bytepixels evaluate`: n, features, sampler, steps, guidance, budget ...
        """
        from .evaluation.sample_quality import evaluate_quality

        with _shown():
            return evaluate_quality(_request(Quality, {"run": self.path}, settings))

    def compare(self, **settings: Any) -> None:
        """Which sampler, and how many steps: a table, and its record. settings: flags of `bytepixels compare`."""
        from .evaluation.compare_samplers import compare

        with _shown():
            compare(_request(Compare, {"run": self.path}, settings))

    def report(self, *others: "Run", **settings: Any) -> Path:
        """All there is to see of it, and of others beside it, in one HTML file. settings: flags of `report`."""
        from .report.report import report

        with _shown():
            return report(_request(Report, {"runs": (self.path, *(one.path for one in others))}, settings))

    def _edit(self, kind: type[EditFlags], own: Mapping[str, Any], settings: Mapping[str, Any]) -> Tensor:
        from .sampling.edit import edit

        with _shown():
            return edit(_request(kind, {"run": self.path} | dict(own), settings))[2]


def stream(work: Callable[..., T], *arguments: Any, **settings: Any) -> Iterator[Event | T]:
    """What `work` says, event by event, then what it returns: for event in stream(train, "digits", images="50k").

    It runs in a thread of its own. Closing the iterator asks a training to stop, waits until it has saved, and returns.
    """
    said: Queue[Event | None] = Queue()
    result: list[T] = []
    failed: list[BaseException] = []
    stop = settings.setdefault("stop", Stop()) if work is train else Stop()

    def run() -> None:
        try:
            with listening(said.put):
                result.append(work(*arguments, **settings))
        except BaseException as error:
            failed.append(error)
        finally:
            said.put(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while (event := said.get()) is not None:
            yield event
        if failed:
            raise failed[0]
        yield result[0]
    finally:
        stop.ask()
        thread.join()


class _Keywords:
    """What was asked for by keywords, by the names of the flags that they are."""

    help = False

    def __init__(self, settings: Mapping[str, Any]):
        self.values = {f"--{name.replace('_', '-')}": value for name, value in settings.items()}

    @property
    def given(self) -> Collection[str]:
        return self.values.keys()

    def get(self, flag: str) -> str | None:
        value = self.values.get(flag)
        return None if value is None else str(value)


def _with(default: Config, settings: Mapping[str, Any]) -> Config:
    """The defaults with what was asked for; the preset and the backbone have made the defaults already."""
    return with_settings(
        default, {name: value for name, value in settings.items() if name not in ("preset", "backbone")}
    )


def _request(kind: Callable[..., T], own: Mapping[str, Any], settings: Mapping[str, Any]) -> T:
    """A request of the command line's, from keywords."""
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    _check_names(settings, known.keys() - own.keys())
    values = dict(own) | dict(settings)
    for name, value in values.items():
        if "Path" in str(known[name].type) and isinstance(value, str):
            values[name] = Path(value)
        elif isinstance(value, list):
            values[name] = tuple(value)
    return kind(**values)


def _check_names(settings: Mapping[str, Any], names: Collection[str]) -> None:
    for name in settings:
        check_choice("a setting", name, sorted(names))


@contextmanager
def _shown() -> Iterator[None]:
    """Events are drawn here where nobody else listens."""
    with nullcontext() if heard() else listening(Console()):
        yield


def _stopping(stop: Stop | None) -> Callable[[], AbstractContextManager[Stop]]:
    """What may ask a training to stop."""
    if stop is not None:
        return lambda: nullcontext(stop)
    if threading.current_thread() is threading.main_thread():
        return stop_on_signals
    return lambda: nullcontext(Stop())
