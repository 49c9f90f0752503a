"""The map between images and x0: pixels, latents and their cache, the losses of an autoencoder."""
