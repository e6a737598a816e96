"""Frames are shown while the recorder keeps up: showing them is the first thing to be given up."""

STOP_FILL, GO_ON_FILL = 0.5, 0.25


class Previews:
    """Says whether a frame is shown, by how full the recorder's ring is."""

    def __init__(self) -> None:
        self._shown = 0
        self._withheld = 0
        self._begun = 0  # what was withheld before this time
        self._is_behind = False

    @property
    def counters(self) -> dict[str, int]:
        """Frames shown, and not shown."""
        return {"written": self._shown, "dropped": self._withheld}

    def admit(self, fill: float) -> tuple[bool, str]:
        """Say whether a frame is shown, and what there is to tell of it, or an empty text.

        Parameters
        ----------
        fill
            Share of the ring that waits for the disk, 0 to 1.
        """
        news = ""
        if not self._is_behind and fill > STOP_FILL:
            self._is_behind, self._begun = True, self._withheld
            news = (
                f"the disk is slow: {100 * fill:.0f} % of the ring wait for it; frames are stored"
                " and no longer shown"
            )
        elif self._is_behind and fill < GO_ON_FILL:
            self._is_behind = False
            news = f"the disk keeps up again; {self._withheld - self._begun} frames were not shown"
        self._shown += not self._is_behind
        self._withheld += self._is_behind
        return not self._is_behind, news
