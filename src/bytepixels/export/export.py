"""The verb export: a run as files for other programs."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file

from .. import events
from ..config.sampling import SampleConfig
from ..core.gaussian_diffusion import GaussianDiffusion
from ..core.recipe import recipe_of
from ..errors import InputError
from ..events import Work
from ..interop.diffusers_unet import check_unet, pipeline_index, scheduler_config, unet_config, unet_tensors
from ..requests.export import Export
from ..runs.run_directory import make_folder, provenance
from ..sampling.conditioning import find_label, labels_of, text_of
from ..sampling.load_weights import open_model
from ..sampling.settings import chosen_settings
from ..sampling.trained_model import TrainedModel, in_precision
from ..wording import bytes_of
from .loop import Plan, sampler_model
from .networks import Finish, as_onnx, inputs_of, network_program, program, quiet
from .page import can_be_guided, html_page, step_settings

if TYPE_CHECKING:
    from onnx import ModelProto

SMALL = 1024  # numbers of a constant, below which it stays in 32 bits


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    folder: Path
    files: list[Path]


def export(request: Export) -> Exported:
    """Write the files, and say what each is. InputError for what no file of that kind can hold."""
    run = open_model(request.run)
    settings = chosen_settings(run, request.sampling)
    own = in_precision(run, "float32")
    model = TrainedModel.open(own, request.checkpoint, request.weights, "cpu")
    folder = request.out or run.path / "export" / request.to
    make_folder(folder, "--out")
    if request.to == "diffusers":
        files = diffusers_files(model, settings, folder, find_label(run, request.label), request.by_class)
    else:
        plan = plan_of(model, settings, settings.guidance != 1)
        about = description(model, settings, plan)
        match request.to:
            case "onnx":
                files = onnx_files(model, plan, folder, request.half)
            case "html":
                files = html_files(model, settings, folder, about)
            case _:
                files = torch_files(model, folder)
        files.append(folder / "model.json")
        files[-1].write_text(json.dumps(about) + "\n", encoding="utf-8")
    for path in files:
        events.say(f"{path}  {bytes_of(path.stat().st_size)}")
    return Exported(folder, files)


def plan_of(model: TrainedModel, settings: SampleConfig, guided: bool) -> Plan:
    """The sampler as a table of numbers. guided: whether guidance may act. InputError where it is no table."""
    run = model.run
    if settings.sampler == "ddpm" and settings.reverse_variance == "learned":
        raise InputError("--sampler ddpm has a learned variance here, which an export does not carry: choose another")
    for name, none in (("guidance_rescale", 0.0), ("guidance_parallel", 1.0)):
        if getattr(settings, name) != none:
            flag = f"--{name.replace('_', '-')} {getattr(settings, name):g}"
            raise InputError(f"{flag} is not carried by an export: draw by it with bytepixels sample")
    labels = labels_of(run, [0], None)
    given = None if labels is None else torch.tensor(labels)
    _, step = model.sampling(settings, given, text_of(run, [0], None, model.device))
    levels, sigma_data = model.levels(settings), model.process.sigma_data
    recipe = recipe_of(levels, step)
    low, high = settings.guidance_interval or (0.0, math.inf)
    return Plan(
        recipe,
        math.hypot(levels[0].alpha * sigma_data, levels[0].sigma),
        run.config.process.prediction,
        sigma_data,
        [guided and low <= math.exp(-at.half_log_snr) <= high for at, _, _ in recipe.evaluations],
        model.codec.bounds if settings.clip else None,
    )


def onnx_files(model: TrainedModel, plan: Plan, folder: Path, half: bool) -> list[Path]:
    """network.onnx, and sampler.onnx from noise to images."""
    with Work("export", 3, "graphs") as work:
        network, finish = graphs(model, work)
        null_label = model.network.null_label
        whole = sampler_model(network, finish, plan, null_label if isinstance(null_label, int) else None)
        files = {"network.onnx": network, "sampler.onnx": whole}
        for name, found in files.items():
            (folder / name).write_bytes((halved(found) if half else found).SerializeToString())
        work.update(3)
    return [folder / name for name in files]


def html_files(model: TrainedModel, settings: SampleConfig, folder: Path, about: dict[str, Any]) -> list[Path]:
    """One page, named as the run."""
    with Work("export", 3, "graphs") as work:
        network, finish = graphs(model, work)
        guided = can_be_guided(model)  # by the page's slider, whatever the run's own is
        plans = {steps: plan_of(model, one, guided) for steps, one in step_settings(model, settings).items()}
        path = folder / f"{model.run.path.name}.html"
        path.write_text(html_page(model, settings, plans, halved(network), finish, about), encoding="utf-8")
        work.update(3)
    return [path]


def graphs(model: TrainedModel, work: Work) -> tuple["ModelProto", "ModelProto"]:
    """The network, and the way from x0 to images."""
    network = as_onnx(network_program(model), list(inputs_of(model)), "prediction")
    work.update(1)
    x0 = {"x0": torch.zeros(2, *model.run.x0_shape)}
    finish = as_onnx(program(Finish(model), x0), ["x0"], "images")
    work.update(2)
    return network, finish


def halved(model: "ModelProto") -> "ModelProto":
    """The same graph with its weights kept in 16 bits, and cast to 32 before they are used."""
    from onnx import TensorProto, helper, numpy_helper

    graph, casts = model.graph, []
    for k, tensor in enumerate(graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= SMALL:
            narrow = f"{tensor.name}_half"
            casts.append(helper.make_node("Cast", [narrow], [tensor.name], to=TensorProto.FLOAT))
            graph.initializer[k].CopyFrom(numpy_helper.from_array(values.astype(np.float16), narrow))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def torch_files(model: TrainedModel, folder: Path) -> list[Path]:
    """network.pt2, for torch.export.load."""
    path = folder / "network.pt2"
    with quiet():
        torch.export.save(network_program(model), path)
    return [path]


def diffusers_files(
    model: TrainedModel, settings: SampleConfig, folder: Path, label: int | None, by_class: bool
) -> list[Path]:
    """A folder for DiffusionPipeline.from_pretrained, which draws with DDIM, or DDPM where that is the sampler."""
    if by_class and not model.run.classes:
        raise InputError(f"--by-class: {model.run.path} was trained without labels")
    network = check_unet(model.network, model.run.config)
    if settings.sampler not in ("ddim", "ddpm"):
        events.note(f"the pipeline draws with DDIM, where this run has {settings.sampler}")
    process = model.process
    assert isinstance(process, GaussianDiffusion)  # check_unet saw to it
    config = replace(model.run.config, sample=settings)
    for name, content in {
        "model_index.json": pipeline_index(settings.sampler, model.run.classes if by_class else ()),
        "scheduler/scheduler_config.json": scheduler_config(process, config, settings.sampler),
        "unet/config.json": unet_config(network, config, model.run.shape[1:], by_class),
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    save_file(unet_tensors(network, label, by_class), weights, {"format": "pt"})
    return [folder / "model_index.json", weights]


def description(model: TrainedModel, settings: SampleConfig, plan: Plan) -> dict[str, Any]:
    """What model.json says: how to call the network, and how to draw with it."""
    run = model.run
    return {
        "x0": list(run.x0_shape),
        "images": list(run.shape),
        "network": {name: str(value.dtype).removeprefix("torch.") for name, value in inputs_of(model).items()},
        "prediction": plan.prediction,
        "sigma_data": plan.sigma_data,
        "classes": run.classes,
        "no_label": len(run.classes) if run.classes else None,
        "text": None if run.text is None else {"encoder": run.config.network.text, "hash": run.text["hash"]},
        "guidance": settings.guidance,
        "sampler": {
            "name": settings.sampler,
            "steps": settings.steps,
            "spacing": settings.spacing,
            "scale": plan.scale,
            "clip": settings.clip,
            "noises": plan.recipe.noises,
            "rows": plan.rows.tolist(),
            **{name: values.tolist() for name, values in plan.numbers.items()},
        },
        "run": {"id": run.id, "checkpoint": model.checkpoint_name, "weights": model.weights},
        "made_by": provenance(),
    }
