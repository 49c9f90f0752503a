"""The door from Python: train, and a Run to draw from, edit and measure with. The command line runs the same code.

    import bytepixels as bp

    print(*(one.advice for one in bp.doctor("my-images/", quick=True).findings), sep="\n")
    run = bp.train("my-images/", images="500k")        # a live line; the same call goes on where it was stopped
    run = bp.Run.open("runs/my-images-small")           # or the name of a model that comes along: "digits"
    images = run.sample(16, seed=7, label="cat", guidance=2)   # uint8 [16, C, H, W]

Settings are named as the flags of the command line are, with _ for -: images="500k", lr=1e-3, size=64, labels=False.
What is said on the way is drawn in the terminal, or goes to whoever listens (`bytepixels.events.listening`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from numbers import Integral
from pathlib import Path
from queue import Queue
from signal import SIGINT
from typing import TYPE_CHECKING, Any, TypeVar

from .config.run import Config
from .config.values import value_of
from .console import Console
from .errors import Terminated, check_range
from .events import Event, heard, listening, say
from .requests.check_data import Doctor
from .requests.edit import EditFlags, Inpaint, Interpolate, Invert, Restore, Vary
from .requests.evaluate import Compare, Evaluate, Quality, Report
from .requests.export import Export
from .requests.hub import Pull, Push
from .requests.import_folder import Import
from .requests.keywords import Keywords, configured, request_of
from .requests.sample import Sample
from .runs.models import model_names as model_names
from .runs.run_directory import is_run, open_run
from .signals import stop_on_signals
from .stopping import Stop as Stop
from .training.plan import planned as planned
from .training.plan_stages import planned_autoencoder as planned_autoencoder
from .training.plan_stages import planned_latent as planned_latent
from .verbs import VERBS, loaded

if TYPE_CHECKING:
    from torch import Tensor

    from .core.linear_operators import LinearOperator
    from .data.cache import Entry
    from .runs.overview import Overview
    from .runs.prune import PrunePlan
    from .runs.run_directory import Run as Directory  # noqa: F401
    from .training.autotune.preflight import Diagnosis
    from .verification import Check

if TYPE_CHECKING:
    from .training.autotune.preflight import Diagnosis

T = TypeVar("T")
Place = str | Path  # of a run, or the name of a model that comes along
Source = Any  # a path, a name, or images: see bytepixels.data.sources.in_memory.source_of
OneImage = Any  # a path, or one image: an array, a tensor or PIL's


def perform(request: Any) -> Any:
    """Do what a request asks for, and return its result: the command line, the page and Python all call this.

    request: one of the dataclasses of `bytepixels.requests`. What is said on the way are events.
    """
    kind = type(request)
    places = kind, f"{kind.__module__}.{kind.__name__}".removeprefix(f"{__package__}.")
    service = next(verb.service for verb in VERBS.values() if verb.request in places)
    with _shown():
        return loaded(service)(request)


def train(
    source: Source,
    run: Place | None = None,
    *,
    origin: Place | None = None,
    stop: Stop | None = None,
    **settings: Any,
) -> Run:
    """Train a model on `source`, or go on with the run that is there; returns the run when it is done or stopped.

    source: a folder, an archive, a name such as "digits", or images: an array, a tensor, PIL images, a data set.
    run: its folder; by default runs/SOURCE-PRESET. origin: a run whose averaged weights a new one begins with.
    stop: `stop.ask()`, from any thread, has it save and return. Ctrl-C in the main thread has it save, then raise.
    settings: any flag of `bytepixels train`, by name. Raises InputError for what does not go together.
    """
    return _trained(planned, source, run, origin, stop, settings)


def train_autoencoder(source: Source, run: Place | None = None, *, stop: Stop | None = None, **settings: Any) -> Run:
    """Train the autoencoder of latent diffusion; then train(source, autoencoder=run.path) trains on its latents.

    Arguments as of train, settings as the flags of `bytepixels train autoencoder`; by default runs/SOURCE-autoencoder.
    """
    return _trained(planned_autoencoder, source, run, None, stop, settings)


def _trained(
    plan: Callable[..., tuple[Config, Path, str]],
    source: Source,
    run: Place | None,
    origin: Place | None,
    stop: Stop | None,
    settings: dict[str, Any],
) -> Run:
    from .data.sources.in_memory import source_of

    begun = {name: str(value) for name, value in (("run", run), ("from", origin)) if value is not None}
    with _shown():
        place = source_of(source)
        config, path, said = plan(Keywords(settings | begun), place, lambda default: configured(default, settings))
        if said:
            say(said)
        stopped_by = fit(place, config, path, origin=None if origin is None else Path(origin), stop=stop)
    if stopped_by and stop is None:
        raise Terminated(stopped_by) if stopped_by != SIGINT else KeyboardInterrupt
    return Run.open(path)


def fit(
    source: str,
    config: Config,
    path: Path,
    *,
    profile: int = 0,
    origin: Path | None = None,
    began: float | None = None,
    stop: Stop | None = None,
) -> int:
    """Train with complete settings. Returns 0 at the end, or the number of the signal that stopped it, after saving.

    profile: how many of the first steps are profiled. began: when the time of a budget begins, by time.monotonic().
    """
    from .training.session import train as session

    return session(source, config, path, profile, began, origin, _stopping(stop))


def list_runs(folder: Place = "runs") -> list[Overview]:
    """List the runs in a folder: progress, size and state of each, and what is damaged."""
    from .runs.overview import find_runs, overview_or_damage

    return [overview_or_damage(path) for path in find_runs(Path(folder))]


def prune_runs(
    paths: Place | Sequence[Place], keep: int, optimizer: bool = False, dry_run: bool = False
) -> list[PrunePlan]:
    """Remove all but the newest `keep` checkpoints of each run; return what was removed and what was kept.

    optimizer: those of the checkpoints that stay go too. InputError, before anything goes, when a run is in use.
    """
    from .runs.lock import RunLock
    from .runs.prune import apply_prune, plan_prune

    check_range("keep", keep, 1)
    paths = [paths] if isinstance(paths, (str, Path)) else paths
    with ExitStack() as stack:
        unique = list({Path(path).resolve(): Path(path) for path in paths}.values())
        for path in unique:
            if is_run(path):
                stack.enter_context(RunLock(path)).take()
        plans = [plan_prune(open_run(path), keep, optimizer) for path in unique]
        for plan in plans if not dry_run else []:
            apply_prune(plan)
    return plans


def overview(path: Place, thorough: bool = True) -> Overview:
    """Describe one run as it is on the disk; thorough: verify every checksum. InputError where there is no run."""
    from .runs.overview import inspect_run

    return inspect_run(open_run(Path(path)).path, thorough)


def cached() -> tuple[Path, int | None, list[Entry]]:
    """Return the cache folder, its limit in bytes (None: no limit), and its entries, the least recently used first."""
    from .data.cache import entries, limit
    from .data.packed import default_cache

    return default_cache(), limit(), entries(default_cache())


def clear_cache(chosen: Sequence[Entry]) -> int:
    """Remove these entries from the cache and return how many bytes that freed. Entries in use stay."""
    from .data.cache import remove

    return remove(chosen)


def doctor(source: Source, **settings: Any) -> Diagnosis:
    """Diagnose a source: its contents, its defects, and the cost of training on it on this machine.

    source: as for train. settings: any flag of `bytepixels data doctor`, by name: size, split, preset, quick ...
    Nothing is packed or kept. Raises InputError for a source that is none.
    """
    from .data.sources.in_memory import source_of

    return perform(request_of(Doctor, {"source": source_of(source)}, settings))


def import_run(folder: Place, run: Place | None = None, **settings: Any) -> Run:
    """Make a run of a folder that diffusers saved: a DDPMPipeline, a DDIMPipeline or a UNet2DModel.

    run: the folder of the run; default runs/NAME. settings: any flag of `bytepixels import`, by name: source, size ...
    Raises InputError, with the reason, for what cannot become a run; nothing is written then.
    """
    own = {"folder": Path(folder), "run": None if run is None else Path(run)}
    return Run(perform(request_of(Import, own, settings)).path)


def pull(repository: str, run: Place | None = None, **settings: Any) -> Run:
    """Fetch a run from the Hugging Face hub, and check it. settings: any flag of `bytepixels pull`, by name.

    Raises InputError for what is no run, or does not fit together; nothing is left behind then.
    """
    own = {"repository": repository, "run": None if run is None else Path(run)}
    return Run(perform(request_of(Pull, own, settings)).path)


def verify(out: Place = "verify") -> list[Check]:
    """Check every method against exact results: print a table, write out/verify.png, and return the checks."""
    from .verification.table import verify_to

    with _shown():
        return verify_to(Path(out))


class Run:
    """A trained run, or a bundled model: sample from it, edit images with it, measure it."""

    def __init__(self, path: Place):
        """path: the folder of a run, or the name of a model (`model_names()`). InputError where it is none."""
        self.directory = open_run(value_of(Path, "a run", path))
        self.path = self.directory.path

    @classmethod
    def open(cls, path: Place) -> Run:
        """Open the run at `path`, or the bundled model of that name."""
        return cls(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def config(self) -> Config:
        """All settings of the run."""
        return self.directory.config

    @property
    def classes(self) -> list[str]:
        """The names of the run's classes; [] if it is unconditional."""
        return self.directory.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the run's images."""
        return self.directory.shape

    @property
    def overview(self) -> Overview:
        """Progress, log, checkpoints and measurements of the run, and what is damaged."""
        return overview(self.path, thorough=False)

    @property
    def log(self) -> list[dict[str, Any]]:
        """The training log: a record of loss, learning rate and images seen every few seconds."""
        from .runs.overview import read_log

        return list(read_log(self.path))

    @property
    def finished(self) -> bool:
        """True once the run has used up its training budget."""
        return self.overview.finished

    def sample(self, n: int = 16, *, out: Place | None = None, **settings: Any) -> Tensor:
        """Draw n images, uint8 [n, C, H, W], each a function of its seed.

        out: a folder to write them to as well, with grid.png and manifest.json.
        settings: any flag of `bytepixels sample`: seed, label, prompt, sampler, steps, guidance, weak, batch ...
        """
        import torch

        from .sampling.draw import Drawing, drawn
        from .sampling.output import write_samples

        request = request_of(Sample, {"run": self.path, "n": n, "out": None if out is None else Path(out)}, settings)
        images: list[Tensor] = []
        with _shown():
            drawing = Drawing.prepared(request)
            if request.out is None:
                return drawn(drawing)
            write_samples(drawing, images.append)
        return torch.cat(images)

    def inpaint(self, image: OneImage, mask: OneImage, **settings: Any) -> Tensor:
        """Repaint the white part of `mask`: uint8 [n, C, H, W]. settings: flags of `bytepixels edit inpaint`."""
        return self._edit(Inpaint, {"image": _file(image), "mask": _file(mask)}, settings)

    def vary(self, image: OneImage, **settings: Any) -> Tensor:
        """Draw variations of an image: uint8 [n, C, H, W]. settings: strength, n, seed and others of `edit vary`."""
        return self._edit(Vary, {"image": _file(image)}, settings)

    def interpolate(self, a: OneImage | int, b: OneImage | int, **settings: Any) -> Tensor:
        """Interpolate between two images, or two seeds: uint8 [n, C, H, W]. settings: flags of `edit interpolate`."""
        ends = {"a": a, "b": b}
        own = {name: str(end if isinstance(end, Integral) else _file(end)) for name, end in ends.items()}
        return self._edit(Interpolate, own, settings)

    def invert(self, image: OneImage, **settings: Any) -> Tensor:
        """Invert an image to its noise and reconstruct it: uint8 [n, C, H, W]. settings: flags of `edit invert`."""
        return self._edit(Invert, {"image": _file(image)}, settings)

    def restore(self, image: OneImage, operator: LinearOperator | None = None, **settings: Any) -> Tensor:
        """The images that a small, grey, blurred or torn one may have been made of: uint8 [n, C, H, W].

        settings: task, blur_std, mask, noise, n and others of `bytepixels edit restore`. operator: any linear one, of
        images in [-1, 1]; `image` is then what it measured, a float tensor of one measurement, in its units.
        """
        own: dict[str, Any] = {"image": Path("measurement"), "task": "operator", "measurement": (operator, image)}
        if operator is None:
            own = {"image": _file(image)}
        return self._edit(Restore, own, settings)

    def evaluate(self, **settings: Any) -> dict[str, Any]:
        """Measure sample quality: distances with their floor and scale, copies, drift; also appended to eval.jsonl.

        Of an autoencoder, what it makes of images. settings: flags of `bytepixels evaluate`: n, features, steps ...
        """
        return self._perform(Quality, settings)

    def likelihood(self, **settings: Any) -> list[dict[str, Any]]:
        """Measure bits per dimension (bits=True), or the loss against its optimum (loss=True); returns the records."""
        return self._perform(Evaluate, settings)

    def compare(self, **settings: Any) -> dict[str, Any]:
        """Compare samplers and numbers of steps: a table, and its record. settings: flags of `bytepixels compare`."""
        return self._perform(Compare, settings)

    def report(self, *others: Run, **settings: Any) -> Path:
        """Write one HTML file about this run, and other runs beside it. settings: flags of `bytepixels report`."""
        return perform(request_of(Report, {"runs": (self.path, *(one.path for one in others))}, settings))

    def export(self, to: str, **settings: Any) -> Path:
        """Write files for other programs and return their folder. to, settings: flags of `bytepixels export`."""
        return self._perform(Export, {"to": to} | settings).folder

    def push(self, repository: str, license: str, **settings: Any) -> str:
        """Publish it on the Hugging Face hub, with a model card; returns the address. settings: flags of `push`."""
        return str(self._perform(Push, {"repository": repository, "license": license} | settings))

    def _edit(self, kind: type[EditFlags], own: Mapping[str, Any], settings: Mapping[str, Any]) -> Tensor:
        return perform(request_of(kind, {"run": self.path} | dict(own), settings)).images

    def _perform(self, kind: type[Any], settings: Mapping[str, Any]) -> Any:
        return perform(request_of(kind, {"run": self.path}, settings))


def stream(work: Callable[..., T], *arguments: Any, **settings: Any) -> Iterator[Event | T]:
    """Run `work` in a thread and yield its events, then its result: for event in stream(train, "digits", images="50k").

    It runs in a thread of its own. Closing the iterator asks a training to stop, waits until it has saved, and returns.
    """
    said: Queue[Event | None] = Queue()
    result: list[T] = []
    failed: list[BaseException] = []
    stop = settings.setdefault("stop", Stop()) if work in (train, train_autoencoder) else Stop()

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


def _file(image: OneImage) -> Path:
    """The file of an image that a program holds."""
    from .data.sources.in_memory import image_file

    return image_file(image)


@contextmanager
def _shown() -> Iterator[None]:
    """Draw the events of the block in the terminal, unless somebody listens already."""
    with nullcontext() if heard() else listening(Console()):
        yield


def _stopping(stop: Stop | None) -> Callable[[], AbstractContextManager[Stop]]:
    """The `Stop` that a training looks at: the caller's, or one that Ctrl-C sets."""
    if stop is not None:
        return lambda: nullcontext(stop)
    if threading.current_thread() is threading.main_thread():
        return stop_on_signals
    return lambda: nullcontext(Stop())
