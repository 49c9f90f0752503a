"""The HTML report of a run, and the images and curves of the forward process."""
