"""The command line: what a person types. Thin: every command hands on to a room.

`entry` runs a command, `app` lists them, `options` are those that several have, and `failures` says
how one ends that didn't come through. Nothing heavy is imported before a command needs it, so that
help and a config's problems come at once.
"""

from sgdlab.cli.entry import main

__all__ = ["main"]
