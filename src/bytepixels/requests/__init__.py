"""Requests: frozen dataclasses from which the flags of the command line are generated."""
