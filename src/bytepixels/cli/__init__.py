"""The command line: verbs, their words, and how events are drawn in a terminal."""
