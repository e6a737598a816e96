"""What can go wrong with an instrument.

InstrumentError
+-- UnknownInstrument      no driver or no resource of that name
+-- LinkError              the link is gone, or cannot be trusted any more
|   +-- NoReply            nothing came in time; the link was brought in order again
+-- ReplyError             a reply that makes no sense
+-- InstrumentRefused      the instrument put an error into its queue
+-- NotApplied             a setting reads back as something else
+-- UnsafeRequest          we refuse to send it: it could harm a cell
+-- HolderNotCalibrated    an open holder's readings tell nothing (`potentiostat.calibration`)
"""


class InstrumentError(Exception):
    """Something is wrong with an instrument; says with which, and what was asked."""


class UnknownInstrument(InstrumentError):
    """There is no such driver or resource."""


class LinkError(InstrumentError):
    """The link is gone or cannot be trusted; it is not used again."""


class NoReply(LinkError):
    """No reply came in time; the link was brought in order and may be used again."""


class ReplyError(InstrumentError):
    """A reply makes no sense."""


class InstrumentRefused(InstrumentError):
    """The instrument refused a command."""


class NotApplied(InstrumentError):
    """A setting was sent and reads back as something else."""


class UnsafeRequest(InstrumentError):
    """A command that could harm a cell was kept back; nothing was sent."""
