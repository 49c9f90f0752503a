"""What is asked for, frozen dataclasses that the flags of the command line come from."""
