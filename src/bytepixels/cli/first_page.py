"""The output of bytepixels without a verb: its version, or the page that lists the verbs."""

from ..version import __version__

HELP = """\
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
  data doctor SOURCE        find damaged files and copies; suggest size, preset and budget
  show SOURCE               see what the forward process, which adds noise, does to them
Train
  train SOURCE              train a model; SOURCE is also digits, cifar10, mnist or fashion-mnist
  train latent SOURCE       for larger images: train an autoencoder, then a model on its latents
  train autoencoder SOURCE  train the autoencoder alone
  encode STAGE SOURCE       encode images to latents ahead of time; train --autoencoder STAGE does so by itself
  runs list                 list the runs; runs show RUN describes one, runs prune RUN frees disk space
  cache show                disk space of cached images, latents and features; cache clear frees it
Use a model
  sample RUN                draw new images
  edit KIND RUN IMAGE       change images of your own: inpaint, vary, interpolate, invert or restore
Measure
  evaluate RUN              measure sample quality; evaluate bits RUN: bits per dimension; evaluate loss RUN: the loss
                            beside the best possible one
  compare RUN               compare samplers and numbers of steps: quality against time
  report RUN...             one HTML file about a run, or several side by side
  verify                    check the mathematics on this machine against exact results

Help for each verb: bytepixels train --help
"""


def first_page(words: list[str]) -> str | None:
    """Return the text for --help or --version; None where a verb is given."""
    if not words or words[0] in ("-h", "--help", "help"):
        return HELP
    return f"bytepixels {__version__}" if words[0] in ("--version", "-V", "version") else None
