"""The verbs push and pull: a run on the Hugging Face hub, through huggingface_hub."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from safetensors import safe_open

from .. import events
from ..build import network_without_memory
from ..errors import InputError
from ..files import TEMPORARY
from ..images import grid, save_png
from ..requests.hub import Pull, Push
from ..runs.overview import inspect_run
from ..runs.run_directory import CONFIG, FIRST_STAGE, Run, make_folder, open_run
from ..sampling.conditioning import labels_of, text_of
from ..sampling.load_weights import open_model
from ..sampling.settings import chosen_settings
from ..sampling.trained_model import TrainedModel
from ..wording import bytes_of
from .card import model_card
from .hand_over import hand_over

SAMPLES, CARD = "samples.png", "README.md"
COUNT = 16  # samples on the card
SMALL = 1 << 24  # bytes of a file that holds no weights
FILES = re.compile(  # what a run consists of, and nothing else is fetched
    rf"config\.json|log\.jsonl|README\.md|samples\.png|{re.escape(FIRST_STAGE)}"
    r"|checkpoints/step-\d{8}/(state\.json|(ema|model)\.safetensors)"
)


def push(request: Push) -> str:
    """Write the files, and publish them. Returns the address, or the folder of --out."""
    run = open_model(request.run)
    if request.out is not None:
        make_folder(request.out, "--out")
        if any(request.out.iterdir()):
            raise InputError(f"--out {request.out} is not empty")
        write_files(run, request, request.out)
        events.say(f"{request.out}: what would be sent to {request.repository}; read {CARD} first")
        return str(request.out)
    api = hub().HfApi()
    with TemporaryDirectory() as place:
        write_files(run, request, Path(place))
        with explained(request.repository):
            api.create_repo(request.repository, private=request.private or None, exist_ok=True)
            api.upload_folder(repo_id=request.repository, folder_path=place, commit_message=f"The run {run.path.name}")
    address = f"https://huggingface.co/{request.repository}"
    events.say(f"{address}: others get it with bytepixels pull {request.repository}")
    return address


def write_files(run: Run, request: Push, folder: Path) -> None:
    """Write what is published to an empty folder: the run for others, 16 samples and the card."""
    source = request.data or Path(str(run.data["source"])).name
    hand_over(run, folder, source)
    model = TrainedModel.open(run)
    labels = labels_of(run, range(COUNT), None)
    images = model.draw(chosen_settings(run, {}), range(COUNT), labels, text_of(run, range(COUNT), None, model.device))
    save_png(grid(images), folder / SAMPLES)
    card = model_card(inspect_run(run.path, thorough=False), run, request.repository, request.license, source, SAMPLES)
    (folder / CARD).write_text(card, encoding="utf-8")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        events.say(f"{path.relative_to(folder)}  {bytes_of(path.stat().st_size)}")


def pull(request: Pull) -> Run:
    """Fetch a run, and check it. InputError, with nothing left behind, for what is none."""
    client = hub()
    path = request.run or Path("runs") / request.repository.rpartition("/")[2]
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{path} is not empty: name another folder with --run")
    draft = path.with_name(f"{TEMPORARY}{path.name}-{uuid4().hex[:8]}")
    make_folder(draft, "--run")
    try:
        with explained(request.repository):
            names = chosen_files(request)
            told: dict[str, Any] = {"revision": request.revision, "allow_patterns": names, "local_dir": draft}
            client.snapshot_download(request.repository, **told)
        shutil.rmtree(draft / ".cache", ignore_errors=True)  # what huggingface_hub keeps there
        check_run(draft, request.repository)
        os.replace(draft, path)  # also over an empty folder
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    events.say(f"{path}: the run of {request.repository}")
    events.say(f"bytepixels sample {path} draws from it; {path / CARD} says what it is")
    return open_run(path)


def chosen_files(request: Pull) -> list[str]:
    """The names of the files that are fetched. InputError where there is no run, or it is larger than allowed."""
    found = hub().HfApi().model_info(request.repository, revision=request.revision, files_metadata=True)
    sizes = {one.rfilename: one.size or 0 for one in found.siblings or ()}
    names = [name for name in sizes if FILES.fullmatch(name)]
    if CONFIG not in names or not any(name.endswith(".safetensors") for name in names):
        raise InputError(f"{request.repository} is no run of bytepixels: it has no {CONFIG}, or no checkpoint")
    for name in names:
        if not name.endswith(".safetensors") and sizes[name] > SMALL:
            raise InputError(f"{request.repository}: {name} has {bytes_of(sizes[name])}, more than such a file needs")
    if (whole := sum(sizes[name] for name in names)) > request.limit * 1e9:
        raise InputError(f"{request.repository} has {bytes_of(whole)}, more than --limit {request.limit} GB")
    return names


def check_run(folder: Path, repository: str) -> None:
    """Raise InputError unless the files of a stranger are a whole run whose weights are those of its network.

    The network is built without memory, and compared with what the file of the weights says of its tensors.
    """
    if strange := [path for path in folder.rglob("*") if path.is_symlink()]:
        raise InputError(f"{repository} holds a link, {strange[0].relative_to(folder)}: it was not taken")
    try:
        run = open_run(folder)
        if run.path != folder:
            raise InputError("its config.json cannot be read")
        one = inspect_run(folder, thorough=True)
        if one.damage or not one.saved:
            raise InputError(one.damage[0] if one.damage else "it has no checkpoint")
        wanted = None
        if run.config.autoencoder is None:
            network = network_without_memory(run.config, run.x0_shape, len(run.classes))
            wanted = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
        for saved in one.saved:
            for path in saved.path.glob("*.safetensors"):
                with safe_open(path, "pt") as file:
                    shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
                if wanted is not None and shapes != wanted:
                    raise InputError(f"{path.name} does not fit the network that config.json describes")
    except (InputError, OSError, ValueError, KeyError, TypeError, RuntimeError, MemoryError) as error:
        said = str(error).replace(str(folder), repository)
        raise InputError(f"{repository} is no run that can be opened: {said}") from error


def hub() -> Any:
    """The library huggingface_hub. InputError where it is not installed."""
    try:
        return import_module("huggingface_hub")
    except ImportError as error:
        raise InputError("push and pull need huggingface_hub: pip install 'bytepixels[hub]'") from error


@contextmanager
def explained(repository: str) -> Iterator[None]:
    """Restate in one sentence what went wrong on the way to the hub."""
    errors = import_module("huggingface_hub.errors")
    try:
        yield
    except (
        errors.HfHubHTTPError,
        errors.HFValidationError,
        errors.LocalTokenNotFoundError,
        OSError,
        ValueError,
    ) as error:
        if isinstance(error, InputError):
            raise
        why = " ".join(str(error).split())[:300]
        raise InputError(f"{repository}: the hub could not be used ({type(error).__name__}: {why})") from error
