"""A model in one HTML file: the network, a runtime for browsers, and a page that draws new images offline."""

import base64
import gzip
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment

from ..config.sampling import SampleConfig
from ..data.packed import default_cache
from ..errors import InputError
from ..sampling.conditioning import encoder_of
from ..sampling.settings import is_flow_map
from ..sampling.trained_model import TrainedModel
from .loop import Plan

if TYPE_CHECKING:
    from onnx import ModelProto

FOLDER = Path(__file__).with_name("page")
VERSION = "1.30.0"
RUNTIME = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
RUNTIME_HASH = "sha256:d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
PARTS = {"runtime": "ort.webgpu.bundle.min.mjs", "wasm": "ort-wasm-simd-threaded.asyncify.wasm"}
TRUSTED = (os.environ.get("REQUESTS_CA_BUNDLE"), "/etc/ssl/certs/ca-certificates.crt")  # as the system has it
STEPS = (5, 10, 20, 50)  # that the page offers, beside those of the export
LICENCE = """\
onnxruntime-web, Copyright (c) Microsoft Corporation, MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def html_page(
    model: TrainedModel,
    settings: SampleConfig,
    plans: dict[int, Plan],
    network: "ModelProto",
    finish: "ModelProto",
    about: dict[str, Any],
) -> str:
    """The text of the file. plans: the sampler by its number of steps. about: what model.json says."""
    engine, worker, main, template = (
        (FOLDER / name).read_text(encoding="utf-8") for name in ("engine.js", "worker.js", "main.js", "page.html")
    )
    runtime = runtime_files()
    parts = runtime | {"network": network.SerializeToString(), "finish": finish.SerializeToString()}
    run, text = model.run, text_table(model)
    bounds = [np.broadcast_to(np.asarray(one, np.float32).ravel(), run.x0_shape[:1]) for one in model.codec.bounds]
    told = {name: value for name, value in about.items() if name != "sampler"} | {
        "samplers": [sampler_table(plan) for plan in plans.values()],
        "low": bounds[0].tolist(),
        "high": bounds[1].tolist(),
        "pixels": run.x0_shape == run.shape,
        "text": text,
    }
    _, height, width = run.shape
    made = Environment(autoescape=True).from_string(template)
    return made.render(
        title=run.path.name,
        about_line=f"A diffusion model of {height} x {width} images, trained on {run.data['count']:,} of them.",
        classes=run.classes,
        prompts=list(text["prompts"]) if text else [],
        guided=can_be_guided(model),
        guidance=f"{settings.guidance:g}",
        most_guidance=f"{max(6.0, settings.guidance):g}",
        samplers=[{"steps": steps, "chosen": steps == settings.steps} for steps in plans],
        details=json.dumps({"made_by": about["made_by"], "run": about["run"]}, indent=1),
        licence=LICENCE,
        about=in_script(json.dumps(told)),
        worker=in_script(engine + worker),
        main=in_script(main),
        parts={name: base64.b64encode(gzip.compress(data)).decode() for name, data in parts.items()},
    )


def can_be_guided(model: TrainedModel) -> bool:
    """Whether the network knows something to be guided to, and what it is to be without it."""
    return bool(model.run.classes or model.run.text) and model.run.config.train.label_dropout > 0


def in_script(code: str) -> Any:
    """Code or JSON as it may stand inside a script element."""
    from markupsafe import Markup

    return Markup(code.replace("</", "<\\/").replace("<!--", "<\\!--"))


def sampler_table(plan: Plan) -> dict[str, Any]:
    """A sampler as engine.js takes it."""
    numbers = {name: values.tolist() for name, values in plan.numbers.items()}
    own = {"rows": plan.rows.tolist(), "scale": plan.scale, "noises": plan.recipe.noises}
    return numbers | own | {"clip": plan.bounds is not None}


def text_table(model: TrainedModel) -> dict[str, Any] | None:
    """The captions that the run remembers, and words of which a prompt can be made, as vectors of their tokens in 16
    bits; None without text."""
    run = model.run
    if run.text is None:
        return None
    encoder = encoder_of(run.path, str(run.config.network.text), run.text["hash"], model.device)
    captions = run.text["captions"]
    words = encoder.words()
    words = sorted({*words, *(word for caption in captions if words for word in caption.lower().split())})
    table: dict[bytes, int] = {}

    def tokens(texts: list[str]) -> dict[str, list[int]]:
        vectors, mask = encoder(texts)
        rows = (row[there].half().numpy() for row, there in zip(vectors, mask, strict=True))
        return {
            text: [table.setdefault(vector.tobytes(), len(table)) for vector in row]
            for text, row in zip(texts, rows, strict=True)
        }

    prompts, single = tokens(captions), tokens(words) if words else {}
    vectors = base64.b64encode(b"".join(table)).decode()
    return {"prompts": prompts, "words": single, "width": run.config.network.text_dim, "vectors": vectors}


def runtime_files() -> dict[str, bytes]:
    """onnxruntime-web's files for browsers, from the cache or, once, from npm's registry (33 MB)."""
    import pooch

    folder, file = default_cache() / "downloads" / "onnxruntime-web", f"onnxruntime-web-{VERSION}.tgz"
    trusted = next((path for path in TRUSTED if path and Path(path).is_file()), True)
    try:
        load = pooch.HTTPDownloader(verify=trusted)
        archive = pooch.retrieve(RUNTIME, RUNTIME_HASH, fname=file, path=folder, downloader=load)
    except Exception as error:
        raise InputError(
            f"export --to html needs {RUNTIME} (33 MB, once), which could not be loaded ({type(error).__name__}); "
            f"put it at {folder / file}"
        ) from error
    found = {}
    with tarfile.open(archive) as packed:
        for name, file in PARTS.items():
            member = packed.extractfile(f"package/dist/{file}")
            assert member is not None
            found[name] = member.read()
    return found | {"runtime": as_script(found["runtime"].decode()).encode()}


def as_script(module: str) -> str:
    """The runtime's module as a plain script that defines `ort`: a page from the disk may not import modules."""
    body, found, exports = module.rpartition("export{")
    names = dict(one.split(" as ")[::-1] for one in exports.partition("}")[0].split(","))
    if not found or not {"InferenceSession", "Tensor", "env"} <= names.keys():
        raise InputError(f"onnxruntime-web {VERSION} is not what it was: it exports {', '.join(names) or 'nothing'}")
    body = body.replace("import.meta.url", '"https://runtime.invalid/ort.js"')  # which nothing is fetched from
    kept = ", ".join(f"{name}: {names[name]}" for name in ("InferenceSession", "Tensor", "env"))
    return f"const ort = (() => {{\n{body}\nreturn {{ {kept} }};\n}})();\n"


def step_settings(model: TrainedModel, settings: SampleConfig) -> dict[int, SampleConfig]:
    """The settings for each number of steps that the page offers; few of a flow map lead to their destinations."""
    few = (1, 2, 4, 8) if is_flow_map(model.run.config) else ()
    most = model.run.config.process.timesteps if model.run.config.process.diffusion == "ddpm" else max(STEPS)
    every = [steps for steps in sorted({*few, *STEPS, settings.steps}) if steps <= most]
    return {n: model.settings(sampler="auto", steps=n) if few else replace(settings, steps=n) for n in every}
