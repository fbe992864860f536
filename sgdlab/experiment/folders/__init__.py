"""What a run leaves: its folder with one lock, read back as a `Run`, and its claims settled."""
