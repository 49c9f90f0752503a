"""What bytepixels says without a verb: its version, and the page that lists the verbs and says how to begin."""

from ..version import __version__

HELP = """\
bytepixels: diffusion models from scratch. From a folder of images to a trained model, and on to new images.

Draw at once, with models that come along

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
  encode STAGE SOURCE       store the latents of your images, which train --autoencoder STAGE does by itself
  runs list                 list what was trained; runs show RUN looks at one, runs prune RUN frees disk space
  cache show                how much disk space decoded images take; cache clear frees it
Use a model
  sample RUN                draw new images
  edit KIND RUN IMAGE       change images of your own: inpaint, vary, interpolate, invert or restore
Measure
  evaluate RUN              how good its samples are; evaluate bits RUN: bits per dimension; evaluate loss RUN: is its
                            loss a good one
  compare RUN               which sampler, and how many steps: quality against time
  report RUN...             all there is to see of a run, or of several side by side, in one HTML file
  verify                    check the mathematics on this machine, against exact laws

Every verb explains itself: bytepixels train --help
"""


def first_page(words: list[str]) -> str | None:
    """What to print for these words after `bytepixels`, where they are no verb's."""
    if not words or words[0] in ("-h", "--help", "help"):
        return HELP
    return f"bytepixels {__version__}" if words[0] in ("--version", "-V", "version") else None
