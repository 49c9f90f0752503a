"""The settings of a run, frozen dataclasses, and the presets."""
