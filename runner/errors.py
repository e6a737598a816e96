"""Which error means which exit code: the one place that knows all families.

    the input was refused (2)        ExperimentError, QuantityError, OutputRefused,
                                     LabError, SessionError, a file reader's refusal
    an instrument or camera failed (3)   InstrumentError, InstrumentUnavailable,
                                     CameraError, RecorderLost
"""
