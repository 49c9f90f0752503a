"""The verbs: what each asks for, what does it, and the page that lists them. A line in each adds a verb everywhere."""

from importlib import import_module
from typing import Any, NamedTuple


class Verb(NamedTuple):
    """What is known of a verb. A function or class is itself or its place in the package, loaded when it is needed."""

    request: Any  # a frozen dataclass, whose fields are the flags
    service: Any = ""  # function of the request; `api.perform` calls it, from Python, the terminal and the page
    command: Any = "cli.main.performed"  # function of the parsed line; returns the exit code
    given: tuple[str, ...] = ()  # flags that its name stands for


VERBS = {
    "data doctor": Verb("requests.check_data.Doctor", "training.autotune.preflight_page.diagnose"),
    "show": Verb("requests.show.Show", "report.forward_process.show"),
    "train": Verb("requests.train.Train", command="cli.train.train"),
    "train latent": Verb("requests.train.TrainLatent", command="cli.train.train_latent"),
    "train autoencoder": Verb("requests.train.TrainAutoencoder", command="cli.train.train_autoencoder"),
    "encode": Verb("requests.train.Encode", "training.encode.encode"),
    "runs list": Verb("requests.runs.ListRuns", command="cli.runs.say_list"),
    "runs show": Verb("requests.runs.ShowRun", command="cli.runs.say_run"),
    "runs prune": Verb("requests.runs.PruneRuns", command="cli.runs.prune"),
    "cache show": Verb("requests.cache.ShowCache", command="cli.cache.say_cache"),
    "cache clear": Verb("requests.cache.ClearCache", command="cli.cache.clear"),
    "sample": Verb("requests.sample.Sample", "sampling.output.sample"),
    "edit inpaint": Verb("requests.edit.Inpaint", "sampling.edit.edit"),
    "edit vary": Verb("requests.edit.Vary", "sampling.edit.edit"),
    "edit interpolate": Verb("requests.edit.Interpolate", "sampling.edit.edit"),
    "edit invert": Verb("requests.edit.Invert", "sampling.edit.edit"),
    "edit restore": Verb("requests.edit.Restore", "sampling.edit.edit"),
    "export": Verb("requests.export.Export", "export.export.export"),
    "import": Verb("requests.import_folder.Import", "interop.import_folder.import_folder"),
    "push": Verb("requests.hub.Push", "export.hub.push"),
    "pull": Verb("requests.hub.Pull", "export.hub.pull"),
    "evaluate": Verb("requests.evaluate.Quality", "evaluation.evaluate.evaluate"),
    "evaluate bits": Verb("requests.evaluate.Evaluate", "evaluation.likelihood.evaluate", given=("--bits",)),
    "evaluate loss": Verb("requests.evaluate.Evaluate", "evaluation.likelihood.evaluate", given=("--loss",)),
    "evaluate train-features": Verb("requests.evaluate.TrainFeatures", "evaluation.train_classifier.train_features"),
    "compare": Verb("requests.evaluate.Compare", "evaluation.compare_samplers.compare"),
    "report": Verb("requests.evaluate.Report", "report.report.report"),
    "verify": Verb("requests.show.Verify", command="cli.main.verified"),
}
PAGE = """\
bytepixels: diffusion models from scratch. From a folder of images to a trained model, and on to new images.

Draw at once, with bundled models

  bytepixels sample emoji --prompt "red heart"   also: sample cifar10 --label ship, sample digits --label 7

Train one

  bytepixels train digits --preset digits    two or three minutes on two CPU cores, no download
  bytepixels sample runs/digits-digits       16 new digits: grid.png, and each as a file
  bytepixels report runs/digits-digits       one HTML file with samples and curves

and then with images of your own

  bytepixels data doctor my-images/          what is wrong with them, and how long training would take
  bytepixels train my-images/ --budget 30m   a folder (one subfolder per class, or flat), zip, tar, shards or .npz

Ctrl-C saves first. The same train command again goes on where it stopped.

Look at your images
  data doctor SOURCE         find damaged files and copies; suggest size, preset and budget
  show SOURCE                see what the forward process, which adds noise, does to them
Train
  train SOURCE               train a model; SOURCE is also digits, cifar10, mnist or fashion-mnist
  train latent SOURCE        for larger images: train an autoencoder, then a model on its latents
  train autoencoder SOURCE   train the autoencoder alone
  encode STAGE SOURCE        encode images to latents ahead of time; train --autoencoder STAGE does so by itself
  runs list                  every run in the folder runs, one line each: progress, loss, size, state
  runs show RUN              settings, data, checkpoints and log of one, and how to go on
  runs prune RUN... --keep N free disk space: remove all but the newest checkpoints
  cache show                 disk space of cached images, latents and features, by kind
  cache clear                remove them; they are made again when they are needed
Use a model
  sample RUN                 draw new images
  edit inpaint RUN IMAGE     repaint the white part of --mask MASK.png, keep the rest
  edit vary RUN IMAGE        variations of an image: add noise, then denoise
  edit interpolate RUN A B   from one to the other: two images, or two seeds
  edit invert RUN IMAGE      find the noise of an image, and reconstruct the image from it
  edit restore RUN           an image out of a small, grey, blurred or torn one
  export RUN --to onnx       files that draw without bytepixels
  import FOLDER              a run out of a model that diffusers saved
  push RUN REPO              publish a run on the Hugging Face hub, with a model card
  pull REPO                  fetch one from there
Measure
  evaluate RUN               sample quality: distances from the training images, copies, drift
  evaluate bits RUN          bits per dimension on held-out images
  evaluate loss RUN          the loss at every noise level, beside the best possible one
  evaluate train-features    train a classifier on labelled images, whose features know your classes
  compare RUN                samplers and numbers of steps: quality against time
  report RUN...              one HTML file about a run, or several side by side
  verify                     check the mathematics on this machine against exact results

Help for each verb: bytepixels train --help. Completion: eval "$(bytepixels --completion bash)", or zsh
"""


def loaded(place: Any) -> Any:
    """The function or class at a place in the package, or itself."""
    if not isinstance(place, str):
        return place
    module, _, name = place.rpartition(".")
    return getattr(import_module(f".{module}", __package__), name)


def page_of(word: str) -> str:
    """The lines of the page about the verbs that begin with a word, such as edit."""
    lines = [line for line in PAGE.splitlines() if line.startswith(f"  {word} ")]
    names = [name.removeprefix(f"{word} ") for name in VERBS if name.startswith(f"{word} ")]
    usage = f"usage: bytepixels {word} {'|'.join(names)} ..."
    return "\n".join([usage, "", *lines, "", f"Help for each: bytepixels {word} {names[0]} --help"])
