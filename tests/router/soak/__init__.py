"""A router under load, faults, mirrors and changing tables for a long time: ``make soak``."""
