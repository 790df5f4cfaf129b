"""The ports, implemented: each module here knows one system of the world."""
