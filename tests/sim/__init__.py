"""The simulator: the real loop and core on memory edges, under a virtual clock, with faults, and checkers.

``python -m tests.sim --seeds 1000`` runs a campaign; a failure prints the command that repeats it.
"""
