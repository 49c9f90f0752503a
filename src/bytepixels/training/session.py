"""The verb train: from images to a run; the same command again resumes it."""

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from .. import events
from ..build import with_stem
from ..config.run import Config, changed_settings
from ..data import Packed
from ..distributed.process_group import ProcessGroup, join, own_device
from ..errors import InputError, check_range
from ..files import reason, remove
from ..hardware import best_device, is_slow_in_bf16
from ..runs.checkpoints import list_checkpoints
from ..runs.lock import RunLock
from ..runs.origin import kept
from ..runs.packing import UNLIMITED, Preparation, flips, pack_with_progress, requested_data, resolved
from ..runs.run_directory import Run, is_free, is_run, make_folder, new_id, open_run, run_leftovers
from ..sampling.conditioning import check_same_text, with_text
from ..sampling.first_stage import EncodedImages, encoded, keep_first_stage
from ..stopping import Stop
from ..wording import many
from .autotune.batch_size import with_batch_size
from .autotune.compilation import choose_compile
from .autotune.precision import choose_precision
from .autotune.profiler import check_profile, profile_steps
from .diffusion_task import task_of
from .nonfinite import TrainingError
from .perceptual import chosen_perceptual
from .pretrained import open_origin, record_of
from .trainer import Trainer

FEW = 500  # images: below this a model is likely to copy its training set (see the field's memorisation reports)


def train(
    source: str,
    config: Config,
    path: Path,
    profile: int = 0,
    began: float | None = None,
    origin: Path | None = None,
    stopping: Callable[[], AbstractContextManager[Stop]] = lambda: nullcontext(Stop()),
) -> int:
    """Train or resume the run at `path`. Returns 0 at the end, or the signal that stopped it, after saving.

    profile: how many of the first steps are profiled. began: when the command was given, by time.monotonic(); a budget
    of time counts from there. origin: a run, or a checkpoint of one, whose averaged weights a new run begins with.
    stopping: gives what may ask the training to stop, once it can be stopped without a loss.

    Under torchrun every process calls it: the first one writes the run, and is the only one that speaks.
    """
    began = time.monotonic() if began is None else began
    device = best_device(own_device(config.train.device))
    with join(device, config.train.shard) as world, RunLock(path) as lock:
        world.broadcast_from_rank0(lambda: take(lock) if is_run(path) else None)
        before = UNLIMITED if is_run(path) else Preparation(config.train.budget, began)
        captions = config.network.text is not None
        packed = pack_with_progress(source, requested_data(config.data, path), before)
        if len(packed) < FEW:
            copied = "will copy it" if len(packed) == 1 else "is likely to copy them"
            events.say(f"note: Only {many(len(packed), 'image')}: the model {copied}")
        if packed.captions is not None and not captions and config.autoencoder is None and not is_run(path):
            events.say("note: The captions are not used; --text wordllama trains on them too")
        latents = encoded(config, path, packed, flips(config, packed), device, before)
        run = shared_run(world, packed, lambda: prepare_run(packed, source, config, path, device, latents, origin))
        check_range("--batch on that many processes", run.config.train.batch, world.size)
        with stopping() as stop, _full_disk(path):
            task = task_of(run, packed, world, latents)
            # refuses what does not fit before anything is written
            trainer = Trainer(run, task, world, began, lambda: lock.held)
            if not trainer.done:
                return fit(trainer, lock, stop, profile, latents)
    events.say(
        f"{path} is finished: {trainer.images:,} images seen. Go on with a larger --images, --epochs or --budget."
    )
    events.say(task.then)
    return 0


def shared_run(world: ProcessGroup, packed: Packed, prepare: Callable[[], Run]) -> Run:
    """Prepare the run on rank 0 and share it with all ranks. InputError if they see different images."""

    def plain() -> dict[str, Any]:
        run = prepare()
        return asdict(run) | {"path": str(run.path), "config": run.config.to_dict()}

    said = world.broadcast_from_rank0(plain)
    if said["data"]["sha256"] != packed.meta["sha256"]:
        raise InputError(f"process {world.rank} found other images in {said['data']['source']} than process 0")
    return Run(**said | {"path": Path(said["path"]), "config": Config.from_dict(said["config"])})


def take(lock: RunLock) -> None:
    """Take the lock and remove the debris of killed processes. InputError if another process holds it."""
    lock.take()
    for stale in run_leftovers(lock.run):
        remove(stale)


def fit(trainer: Trainer, lock: RunLock, stop: Stop, profile: int = 0, latents: EncodedImages | None = None) -> int:
    """Start the run if it is new, and train."""
    if profile:
        check_profile(trainer, profile)
    trainer.world.broadcast_from_rank0(lambda: begin(trainer.run, lock, latents))
    if profile:
        profile_steps(trainer, profile)
    return trainer.fit(stop)


@contextmanager
def _full_disk(path: Path) -> Iterator[None]:
    """Restate an error of a full or unwritable disk as a TrainingError, in one sentence."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        intact = "the run is intact up to its last checkpoint, and the same command goes on from there"
        raise TrainingError(f"training stopped: {where}{reason(error)}; {intact}") from error


def begin(run: Run, lock: RunLock, latents: EncodedImages | None = None) -> None:
    """Take the lock of a new run, and write its autoencoder and its settings."""
    if not lock.held:
        make_folder(run.path, "--run")
        take(lock)
        if is_run(run.path):
            raise InputError(f"{run.path} was begun by another process just now; the same command goes on with it")
    if latents is not None and not is_run(run.path):
        keep_first_stage(latents.autoencoder, run.path)
    run.save()


def prepare_run(
    packed: Packed,
    source: str,
    config: Config,
    path: Path,
    device: torch.device,
    latents: EncodedImages | None = None,
    origin: Path | None = None,
) -> Run:
    """A new run, not yet written, or the existing one once images and settings are confirmed to be the same."""
    asked, config = config.data, resolved(config, packed)
    config, text = with_text(config, packed, source)
    config = with_machine_settings(config, packed, path, device, latents)
    config = with_stem(config, packed.images.shape[2:] if latents is None else tuple(latents.latents.shape[1:]))
    if config.autoencoder is not None:
        chosen = chosen_perceptual(config.autoencoder.perceptual)
        config = replace(config, autoencoder=replace(config.autoencoder, perceptual=chosen))
    for flag, scale in config.guidance_scales().items():
        if scale != 1 and not (packed.classes or text):
            raise InputError(f"{flag} {scale:g} needs class labels, and {source} has none")
    data = {
        **kept(source, path),
        "count": len(packed),
        "classes": list(packed.classes),
        "sha256": packed.meta["sha256"],
    }
    data |= {"asked": asdict(asked)} | text
    if latents is not None:
        data["first_stage"] = latents.record()
    begun = {} if origin is None else {"from": record_of(*open_origin(origin))}
    if is_run(path):
        old = open_run(path)
        if begun and begun["from"]["id"] != old.data.get("from", {}).get("id"):
            raise InputError(f"--from begins a new run, and {path} is one already; choose another --run")
        if old.data["sha256"] != data["sha256"]:
            own = f"{path} was trained on other images ({old.data['source']}, {old.data['count']:,})"
            anew = f"bytepixels train {shlex.quote(source)} --from {shlex.quote(str(path))} --run NEW"
            raise InputError(f"{own} than {source} holds now; to go on with its weights on these: {anew}")
        check_same_text(old, text.get("text"))
        changed = changed_settings(old.config, config)
        if changed and list_checkpoints(old.checkpoints):  # without any, there is nothing yet to contradict
            raise InputError(f"{path} was begun with other settings ({', '.join(changed)}); choose another --run")
        return replace(old, config=config)
    if not is_free(path):
        raise InputError(f"{path} exists and is not a run; choose another --run")
    return Run(path, config, data | begun, id=new_id())


def with_machine_settings(
    config: Config, packed: Packed, path: Path, device: torch.device, latents: EncodedImages | None = None
) -> Config:
    """Fill in the settings that the machine decides. An existing run keeps its precision."""
    asked = config.train.precision
    if asked == "auto" and is_run(path):
        asked = open_run(path).config.train.precision
    precision, why = choose_precision(asked, device)
    if why:
        events.say(why)
    if precision == "bf16" and is_slow_in_bf16(device):
        faster = f"a new run --from {path}" if is_run(path) else "--precision float32"
        events.say(f"note: This machine only imitates bf16, which is slow; {faster} would be faster")
    config = replace(config, train=replace(config.train, precision=precision))
    if not config.train.batch and is_run(path):
        config = replace(config, train=replace(config.train, batch=open_run(path).config.train.batch))
    config = with_batch_size(config, packed, device, latents)
    return replace(config, train=replace(config.train, compile=choose_compile(config, packed, device, latents)))
