"""The verb import: a folder of diffusers as a run."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import events
from ..config.data import DataConfig
from ..config.run import Config
from ..config.sampling import SampleConfig
from ..errors import InputError
from ..requests.import_folder import Import
from ..runs.checkpoints import save_checkpoint
from ..runs.origin import kept
from ..runs.packing import pack_with_progress
from ..runs.run_directory import Run, is_free, new_id, open_run
from ..wording import many
from .diffusers_folder import CONFIG, read_json, read_weights
from .import_unet import MODEL, network_config, process_config, read_tensors

INDEX, SCHEDULER = "model_index.json", "scheduler_config.json"
PIPELINES = ("DDPMPipeline", "DDIMPipeline")


def import_folder(request: Import) -> Run:
    """Write a run with the folder's weights. InputError, before anything is written, for what no run can be."""
    unet, scheduler, names = parts_of(request.folder)
    told = read_json(unet / CONFIG, "a model of diffusers")
    if (kind := told.get("_class_name")) != "UNet2DModel":
        raise InputError(f"{unet / CONFIG} must be of a UNet2DModel, got {kind}")
    try:
        network, process = network_config(told), process_config(scheduler)
        size = request.size or size_of(told)
        channels, rows = told.get("in_channels", MODEL["in_channels"]), int(told.get("num_class_embeds") or 0)
        data = DataConfig(size, channels)
        sample = SampleConfig(steps=min(SampleConfig.steps, process.timesteps), clip=scheduler.get("clip_sample", True))
        config = Config(data=data, process=process, network=network, sample=sample)
    except (InputError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise InputError(f"{request.folder} cannot become a run: {error}") from error
    null = null_class(request, rows, names)
    classes = rows - (null is not None)
    tensors = read_tensors(unet, config, classes, read_weights(unet), null)
    path = request.run or Path("runs") / Path(os.path.abspath(request.folder)).name
    if not is_free(path):
        raise InputError(f"{path} is not empty: name another folder with --run")
    record: dict[str, Any] = {"source": os.path.abspath(request.folder), "count": 0, "classes": names, "sha256": {}}
    if request.source is not None:
        packed = pack_with_progress(request.source, data)
        record = kept(request.source, path) | {"count": len(packed), "sha256": packed.meta["sha256"]}
        record["classes"] = names or list(packed.classes)
        if not names and classes and len(packed.classes) == classes:
            events.note(f"its classes have no names; taken to be, in this order: {', '.join(packed.classes[:20])}")
    if len(record["classes"]) != classes:
        record["classes"] = [str(k) for k in range(classes)]
    record["imported"] = {"folder": os.path.abspath(request.folder), "kind": kind}
    run = Run(path, config, record, id=new_id())
    run.save()
    save_checkpoint(run.checkpoints, run.id, 0, 0, {"ema": tensors}, keep=1)
    weights = sum(tensor.numel() for tensor in tensors.values())
    about = f"{weights:,} weights, {size[0]} x {size[1]}, {many(channels, 'channel')}, {process.schedule} schedule"
    events.say(f"{path}: a {kind} of {about}" + (f", {classes} classes" if classes else ""))
    events.say(f"bytepixels sample {path} draws from it; bytepixels train SOURCE --from {path} trains it further")
    return open_run(path)


def parts_of(folder: Path) -> tuple[Path, Mapping[str, Any], list[str]]:
    """The folder of the network, the scheduler's settings, and the names of the classes, if there are any.

    Files that a pipeline keeps beside model_index.json, as the first ones did, are found too.
    """
    if not (folder / INDEX).is_file():
        events.note(
            f"{folder} has no {INDEX}: taken as the network alone, of DDPM's linear schedule with 1,000 timesteps"
        )
        return folder, {"num_train_timesteps": 1000}, []
    index = read_json(folder / INDEX, "a diffusers pipeline")
    if (kind := index.get("_class_name")) not in PIPELINES:
        raise InputError(f"{folder / INDEX} must be of a {' or '.join(PIPELINES)}, got {kind}")
    unet, own = ((folder / name if (folder / name).is_dir() else folder) for name in ("unet", "scheduler"))
    labels = index.get("id2label")
    labels = labels if isinstance(labels, dict) and all(key.isdecimal() for key in labels) else {}
    names = [str(labels[key]) for key in sorted(labels, key=int)]
    return unet, read_json(own / SCHEDULER, "a diffusers pipeline"), names


def size_of(told: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width, as a network's config.json says. InputError where it does not."""
    size = told.get("sample_size")
    if size is None:
        raise InputError("its config.json does not say sample_size: give --size HEIGHT WIDTH")
    height, width = size if isinstance(size, list) else (size, size)
    return height, width


def null_class(request: Import, rows: int, names: list[str]) -> int | None:
    """The row of the class embeddings that means "no class". InputError for one that is not there."""
    if request.null_class is not None:
        if request.null_class >= rows:
            raise InputError(f"--null-class {request.null_class}: the model has {rows} rows of classes")
        return request.null_class
    if rows and len(names) == rows - 1:
        return rows - 1
    if rows:
        events.note(f"its {rows} classes have no row for no class (see --null-class): draw without guidance")
    return None
