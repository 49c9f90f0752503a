"""data doctor SOURCE: what is in a source, what is wrong with it, and what training on it takes on this machine."""

import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ... import events
from ...build import build_network
from ...config.run import Config
from ...data import Packed, default_cache
from ...data.inspection.statistics import (
    Numbers,
    class_numbers,
    copy_numbers,
    file_numbers,
    picture_numbers,
    pixel_numbers,
)
from ...data.inspection.survey import Glance, Survey, glances, survey
from ...data.sources.decode import Layout
from ...data.sources.open_source import open_source
from ...data.sources.source import Pictures
from ...errors import InputError
from ...events import Work
from ...files import write_json
from ...hardware import best_device
from ...requests.check_data import Doctor
from ...runs.packing import resolved
from ...runs.run_directory import make_folder
from ..defaults import choice_sentence, choose
from .batch_size import with_batch_size
from .precision import choose_precision
from .preflight_advice import advice
from .preflight_lines import class_lines, copy_lines, file_lines, picture_lines, pixel_lines
from .preflight_page import disk_lines, numbered, overfit_lines, time_lines
from .preflight_plan import (
    budget_numbers,
    budget_sentence,
    command,
    layout_of,
    on_a_gpu,
    train_numbers,
    train_paragraph,
    with_budget,
)
from .trial import measure, overfit, reckon, size_numbers

OVERFIT_SECONDS, QUICK_SECONDS = 25.0, 8.0


def doctor(flags: Doctor) -> None:
    """Print the page, part by part as it is found out; write --json. InputError for a source that is none."""
    if flags.json is not None:
        check_target(flags.json)
    device = best_device(flags.device)
    pictures = open_source(flags.source, flags.split, default_cache()).read()
    with Work("headers", len(pictures.names), "images") as progress:
        seen = glances(pictures, lambda done, total: progress.update(done))
    config = choose(seen.values(), flags.data, flags.preset, device)
    layout = layout_of(config.data)
    build_network(config, (layout.channels, layout.height, layout.width), 0, torch.device("meta"))  # refuses early
    others = look_at({flags.split: pictures} | other_splits(flags), layout)
    found = others.pop(flags.split)
    if not len(found.readable):
        first = file_numbers(found)["unreadable"][:3]
        named = ", ".join(f"{file['name']} ({file['reason']})" for file in first)
        raise InputError(f"{flags.source} holds no readable image among {len(found.digests):,} files: {named}")
    report = pictures_report(flags, found, seen, layout, others)
    sample = sample_of(found)
    config = resolved(with_budget(config, report["copies"]["distinct"]), sample)
    config = with_batch_size(config, sample, device)
    precision, _ = choose_precision(config.train.precision, device)
    config = replace(config, train=replace(config.train, precision=precision))
    reckoned = reckon(config, sample, device)
    micro = reckoned["at_a_time"] % config.train.batch  # 0 is the whole batch
    config = replace(config, train=replace(config.train, micro_batch=micro))
    report |= plan_report(flags, config, report, seen.values(), device)
    report |= trial_report(flags, config, reckoned, sample, device)
    report["disk"] = disk_numbers(report, config)
    report["worth_doing_first"] = advice(report)
    events.part(f"On this machine ({device})", [*time_lines(report), *disk_lines(report["disk"])])
    events.part("Does it learn?", overfit_lines(report["overfit"]))
    events.part("Worth doing first", numbered(report["worth_doing_first"]))
    if flags.json is not None:
        write_json(flags.json, report)
        events.say(f"all numbers and names: {flags.json}")


def check_target(path: Path) -> None:
    """Refuse, before any work, a file that cannot be written at its end."""
    if path.is_dir():
        raise InputError(f"--json {path} is a folder, not a file")
    make_folder(path.absolute().parent, "--json")


def look_at(splits: dict[str, Pictures], layout: Layout) -> dict[str, Survey]:
    """The survey of every split, under one progress line."""
    found = dict[str, Survey]()
    with Work("pixels", sum(len(pictures.names) for pictures in splits.values()), "images") as progress:
        for split, pictures in splits.items():
            found[split] = survey(pictures, layout, progress.part())
    return found


def other_splits(flags: Doctor) -> dict[str, Pictures]:
    """What the source holds beside the split that is looked at: name -> images."""
    found = {}
    for split in ("train", "val", "test") if flags.split != "all" else ():
        if split != flags.split:
            with suppress(InputError):  # it has no such split
                found[split] = open_source(flags.source, split, default_cache()).read()
    return found


def pictures_report(
    flags: Doctor, found: Survey, seen: dict[int, Glance], layout: Layout, others: dict[str, Survey]
) -> Numbers:
    """Print and return what there is to say of the images."""
    report: Numbers = {"source": flags.source, "split": flags.split}
    report["pictures"] = picture_numbers(found, seen, layout)
    report["files"] = file_numbers(found)
    report["copies"] = copy_numbers(found, flags.split, others)
    report["classes"] = class_numbers(found)
    report["pixels"] = pixel_numbers(found)
    events.part(f"{flags.source}, split {flags.split}", picture_lines(report["pictures"]))
    events.part("Files", file_lines(report["files"]))
    events.part("Copies", copy_lines(report["copies"]))
    events.part("Classes", class_lines(report["classes"]))
    events.part(f"Pixels, at {layout.height} x {layout.width}", pixel_lines(report["pixels"]))
    return report


def sample_of(found: Survey) -> Packed:
    """A few of the images, evenly over the source, as if they were all that was packed."""
    chosen = sorted(found.sample)
    labels = None if found.pictures.labels is None else found.pictures.labels[chosen]
    images = np.stack([found.sample[k] for k in chosen])
    return Packed(images, labels, found.pictures.classes, {}, Path(), ())


def plan_report(
    flags: Doctor, config: Config, report: Numbers, seen: Collection[Glance], device: torch.device
) -> Numbers:
    """Print and return what train would do, and what to type."""
    skipped, classes = len(report["files"]["unreadable"]), report["classes"]
    train = train_numbers(config, report["pictures"], skipped, classes["count"] if classes else 0)
    budget = budget_numbers(config, report["copies"]["distinct"])
    line = command(flags.source, config, flags.preset, flags.data)
    events.part("What train will do", [("", train_paragraph(train))])
    lines = [
        ("preset", config.preset),
        ("size", choice_sentence(config, seen, flags.data, config.preset)),
        ("budget", budget_sentence(budget)),
        ("on a GPU", on_a_gpu(config, report["pictures"]["readable"], device)),
    ]
    events.part("Suggestion", [one for one in lines if one[1]], verbatim=line)
    return {"train": train, "budget": budget, "suggestion": {"preset": config.preset, "command": line}}


def trial_report(
    flags: Doctor, config: Config, reckoned: Numbers, sample: Packed, device: torch.device
) -> dict[str, Numbers | None]:
    """What trying it out shows; nothing is tried that takes too much memory or time."""
    limit, tried = QUICK_SECONDS if flags.quick else OVERFIT_SECONDS, reckoned["fits"] and reckoned["in_time"]
    timed = tried and not flags.quick
    return {
        "reckoned": reckoned,
        "network": size_numbers(config, sample, device),
        "measured": measure(config, sample, device, reckoned["seconds_per_picture"]) if timed else None,
        "overfit": overfit(config, sample, device, limit, reckoned["bytes_per_picture"]) if tried else None,
    }


def disk_numbers(report: Numbers, config: Config) -> Numbers:
    """What the packed set and a run take, and what is free where they will be."""
    (height, width), channels = report["train"]["size"], report["train"]["channels"]
    packed = report["pictures"]["readable"] * channels * height * width
    checkpoint, cache = report["network"]["checkpoint_bytes"], default_cache()
    while not cache.exists():
        cache = cache.parent
    run = (config.train.keep + 1) * checkpoint  # one more while it is written
    return {
        "packed_bytes": packed,
        "checkpoint_bytes": checkpoint,
        "kept": config.train.keep,
        "needed_bytes": packed + run,
        "free_bytes": min(shutil.disk_usage(place).free for place in (cache, Path.cwd())),
    }
