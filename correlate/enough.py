"""Too little data is an answer, and it says what would be enough."""


class NotEnoughData(ValueError):
    """There is too little to say anything.

    Parameters
    ----------
    reason
        What is missing.
    enough
        What would do.
    """

    def __init__(self, reason: str, enough: str) -> None:
        super().__init__(f"not enough data: {reason}; {enough}")
        self.reason = reason
        self.enough = enough
