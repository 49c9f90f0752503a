"""A run in, images out: weights, settings, labels and prompts, drawing, editing, files."""
