"""The commands that only read files or the state of a run."""
