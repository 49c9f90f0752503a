"""The verb data doctor: contents and defects of a source, and the cost of training on it on this machine."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ...build import build_network
from ...config.data import DataConfig
from ...config.run import Config
from ...data import Packed, default_cache
from ...data.inspection.statistics import DatasetStatistics, dataset_statistics
from ...data.inspection.survey import DatasetInspection, inspect_images, read_headers
from ...data.pack import checked_settings
from ...data.sources.decode import Layout
from ...data.sources.folder_labels import printable
from ...data.sources.open_source import open_source
from ...data.sources.source import ImageList
from ...errors import InputError
from ...files import write_json
from ...hardware import best_device
from ...requests.check_data import Doctor
from ...runs.packing import resolved
from ...runs.run_directory import make_folder
from ..defaults import choose
from .batch_size import with_batch_size
from .precision import choose_precision
from .preflight_advice import Finding, TrainingPlan, find_problems, plan_training, with_budget
from .trial import OverfitCheck, StepEstimate, StepMeasurement, estimate_step, measure_step, overfit

OVERFIT_SECONDS, QUICK_SECONDS = 25.0, 8.0


@dataclass(frozen=True)
class Diagnosis:
    """All findings of data doctor as plain values, with advice for every problem."""

    data: DatasetStatistics
    plan: TrainingPlan
    device: str
    step: StepEstimate
    measured: StepMeasurement | None  # None where it was not asked for, or takes too much time or memory
    overfit: OverfitCheck | None  # None where it takes too much
    packed_bytes: int  # of the images as they are packed
    needed_bytes: int  # of those and of a run
    free_bytes: int  # on the disks where they will be
    findings: list[Finding]  # the most important first


def doctor(request: Doctor, show: Callable[..., object] = lambda *parts: None) -> Diagnosis:
    """Inspect every image of a source, plan a training on it, and try it out; nothing is packed or kept.

    show: is called as soon as these parts of the diagnosis are known, with (data), then with (data, plan). Writes the
    file request.json, where it is given. Raises InputError for a source that is none, or that the network cannot take.
    """
    if request.json is not None:
        check_target(request.json)
    device = best_device(request.device)
    images = open_source(request.source, request.split, default_cache()).read()
    headers = read_headers(images)
    config = choose(headers.values(), request.data, request.preset, device)
    layout = layout_of(config.data)
    build_network(config, (layout.channels, layout.height, layout.width), 0, torch.device("meta"))  # refuses early
    every_split = {request.split: images} | other_splits(request)
    splits = {split: inspect_images(one, layout) for split, one in every_split.items()}
    found = splits[request.split]
    if not len(found.readable):
        first = [(images.names[k], reason) for k, reason in sorted(found.unreadable.items())[:3]]
        named = ", ".join(printable(f"{name} ({reason})") for name, reason in first)
        raise InputError(f"{request.source} holds no readable image among {len(found.digests):,} files: {named}")
    data = dataset_statistics(request.source, splits, headers, layout)
    show(data)
    sample = sample_of(found)
    config, step = with_training_settings(with_budget(config, data.copies.distinct), sample, device)
    plan = plan_training(request, config, data, headers.values(), device)
    show(data, plan)
    timed, limit = step.can_be_tried and not request.quick, QUICK_SECONDS if request.quick else OVERFIT_SECONDS
    measured = measure_step(config, sample, device, step.seconds_per_image) if timed else None
    check = overfit(config, sample, device, limit, step.bytes_per_image) if step.can_be_tried else None
    packed, free = data.images * sample.images[0].size, free_disk()
    needed = packed + (config.train.keep + 1) * step.checkpoint_bytes  # one more while it is written
    findings = find_problems(data, plan, step, check, needed - free)
    diagnosis = Diagnosis(data, plan, str(device), step, measured, check, packed, needed, free, findings)
    if request.json is not None:
        write_json(request.json, asdict(diagnosis))
    return diagnosis


def check_target(path: Path) -> None:
    """Raise InputError, before any work, for a file that could not be written at the end."""
    if path.is_dir():
        raise InputError(f"--json {path} is a folder, not a file")
    make_folder(path.absolute().parent, "--json")


def layout_of(data: DataConfig) -> Layout:
    """The size, fit and background that packing will use; InputError for a background that is no colour."""
    settings = checked_settings(data.size, data.channels, data.fit, data.background, data.split)
    assert settings.size is not None
    assert settings.channels is not None
    return Layout(*settings.size, settings.channels, settings.fit, settings.background)


def other_splits(request: Doctor) -> dict[str, ImageList]:
    """The source's splits beside the one that is looked at: name -> images."""
    found = {}
    for split in ("train", "val", "test") if request.split != "all" else ():
        if split != request.split:
            with suppress(InputError):  # it has no such split
                found[split] = open_source(request.source, split, default_cache()).read()
    return found


def sample_of(found: DatasetInspection) -> Packed:
    """A few images, spread evenly over the source, as if they were the whole pack."""
    chosen = sorted(found.sample)
    labels = None if found.images.labels is None else found.images.labels[chosen]
    images = np.stack([found.sample[k] for k in chosen])
    return Packed(images, labels, found.images.classes, {}, Path(), ())


def with_training_settings(config: Config, sample: Packed, device: torch.device) -> tuple[Config, StepEstimate]:
    """The config with every setting that train would decide, and an estimate of one step."""
    config = with_batch_size(resolved(config, sample), sample, device)
    precision, _ = choose_precision(config.train.precision, device)
    config = replace(config, train=replace(config.train, precision=precision))
    step = estimate_step(config, sample, device)
    micro = step.at_a_time % config.train.batch  # 0 is the whole batch
    return replace(config, train=replace(config.train, micro_batch=micro)), step


def free_disk() -> int:
    """The lesser of the free bytes on the disks of the cache and of the run."""
    cache = default_cache()
    while not cache.exists():
        cache = cache.parent
    return min(shutil.disk_usage(place).free for place in (cache, Path.cwd()))
