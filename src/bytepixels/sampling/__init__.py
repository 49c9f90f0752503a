"""Sample from a run: weights, settings, labels and prompts, drawing, editing, files."""
