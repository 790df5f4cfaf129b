"""What the data plane refuses."""


class Refused(Exception):
    """A message that is not taken: the status that its sender gets, and why. Its connection ends."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
