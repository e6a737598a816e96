"""Coded beam blanking as an experiment file asks for it, and what is wrong with that."""

import math
from dataclasses import dataclass

from cameras.microscope import UnknownMicroscope, microscope_class
from runner.config import MOCK, ExperimentTable
from runner.problems import Key
from sync.code import CodePlan, CodeRefused, check_code

ORDERS = range(5, 11)
AUTO_ORDERS = (7, 6, 5)  # the longest that there is time for
PLAYED_SHARE = 0.5  # of the time from code to code that one may take, so that most of it is lit
UNKNOWN_DUTY = 0.9  # of a camera that does not say how long it exposes

_Found = list[tuple[Key, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlankingSettings:
    """A code to play with the beam.

    Parameters
    ----------
    order
        Of the sequence; None for the longest that there is time for.
    chip_s
        Length of a chip; None to choose it by what camera and meter are measured to do.
    every_s
        From the beginning of a code to that of the next one; infinite for a single one.
    after_s
        From the beginning of the run to the first code.
    repeats
        How often the sequence is played without a break.
    response_s, rise_s
        About what the time constant of the beam's current and the blanker's rise are.
    """

    order: int | None
    chip_s: float | None
    every_s: float
    after_s: float
    repeats: int
    response_s: float
    rise_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """What a code must suit: when frames and readings are taken.

    Parameters
    ----------
    duty
        Share of the frame period that is exposed.
    aperture_s
        Of a reading; NaN where it is not known.
    """

    frame_period_s: float
    duty: float
    sample_interval_s: float
    aperture_s: float


class CodeTooLong(CodeRefused):
    """A code leaves too little time until the next one."""


def plan_code(settings: BlankingSettings, rhythm: Rhythm) -> CodePlan:
    """Judge or choose a code for what camera and meter do.

    Raises
    ------
    CodeRefused
        The chip does not suit, or no code is short enough; with a chip that would do.
    ValueError
        No chip suits with this order.
    """
    orders = AUTO_ORDERS if settings.order is None else (settings.order,)
    plans = [_plan_order(settings, rhythm, order) for order in orders]
    for plan in plans:
        if plan.code.length_s <= PLAYED_SHARE * settings.every_s:
            return plan
    code = plans[-1].code
    reason = (
        f"a code of {code.length_s:.4g} s would be played more than half of the "
        f"{settings.every_s:.4g} s from one to the next; leave at least "
        f"{code.length_s / PLAYED_SHARE:.4g} s"
    )
    raise CodeTooLong((reason,), code.chip_ns / 1e9)


def _plan_order(settings: BlankingSettings, rhythm: Rhythm, order: int) -> CodePlan:
    return check_code(
        settings.chip_s,
        frame_period_s=rhythm.frame_period_s,
        duty=min(rhythm.duty, 1.0),
        sample_interval_s=rhythm.sample_interval_s,
        aperture_s=None if math.isnan(rhythm.aperture_s) else rhythm.aperture_s,
        tau_s=settings.response_s,
        rise_s=settings.rise_s,
        order=order,
        repeats=settings.repeats,
    )


def blanking_settings(tables: ExperimentTable) -> BlankingSettings | None:
    """Return what a file asks for; None where it does not blank."""
    blanker = tables.blanker
    if blanker is None:
        return None
    return BlankingSettings(
        order=blanker.code if isinstance(blanker.code, int) else None,
        chip_s=blanker.chip,
        every_s=math.inf if blanker.every is None else blanker.every,
        after_s=blanker.after,
        repeats=blanker.repeats,
        response_s=blanker.response,
        rise_s=blanker.rise,
    )


def check_blanking(tables: ExperimentTable) -> _Found:
    """Return all that is wrong with the microscope and the code, each with its key."""
    found = _check_microscope(tables)
    blanker = tables.blanker
    if blanker is None:
        return found
    if tables.microscope is None:
        found.append((("blanker",), "has no microscope to command; name one in [microscope]"))
    if tables.camera is None:
        found.append((("blanker",), "has no camera to see the code; leave it out"))
    mistakes: _Found = []
    if isinstance(blanker.code, int) and blanker.code not in ORDERS:
        mistakes.append((("blanker", "code"), 'is "auto" or an order from 5 to 10'))
    for name, example in (("chip", "0.9 s"), ("every", "10 min")):
        value = getattr(blanker, name)
        if value is not None and value <= 0:
            mistakes.append((("blanker", name), f"must be more than nothing, such as {example}"))
    mistakes += [
        (("blanker", name), "cannot be negative")
        for name in ("after", "response", "rise")
        if getattr(blanker, name) < 0
    ]
    if blanker.repeats < 1:
        mistakes.append((("blanker", "repeats"), "is at least 1"))
    return found + (mistakes or _check_chip(tables))


def _check_microscope(tables: ExperimentTable) -> _Found:
    microscope, camera = tables.microscope, tables.camera
    if microscope is None:
        return []
    found: _Found = []
    if not 0 <= microscope.port < 65536:
        found.append((("microscope", "port"), "is no TCP port; those lie between 1 and 65535"))
    if microscope.driver == MOCK:
        simulated = tables.potentiostat.resource == MOCK
        if not simulated and (camera is None or camera.driver != MOCK):
            what = 'stands on a simulated bench; make the potentiostat or the camera "mock", too'
            found.append((("microscope", "driver"), what))
        return found
    try:
        microscope_class(microscope.driver)
    except UnknownMicroscope as error:
        found.append((("microscope", "driver"), str(error)))
    return found


def _check_chip(tables: ExperimentTable) -> _Found:
    """Judge the code by what the file says of camera and meter; the run measures it anew."""
    camera, potentiostat = tables.camera, tables.potentiostat
    settings = blanking_settings(tables)
    if camera is None or settings is None or camera.frame_rate <= 0:
        return []
    if potentiostat.line_frequency <= 0 or potentiostat.nplc <= 0:
        return []
    exposure_s = camera.exposure
    aperture_s = potentiostat.nplc / potentiostat.line_frequency
    rhythm = Rhythm(
        frame_period_s=1 / camera.frame_rate,
        duty=UNKNOWN_DUTY if exposure_s is None else exposure_s * camera.frame_rate,
        # Readings take at least their aperture; how much longer, the run finds out.
        sample_interval_s=aperture_s,
        aperture_s=aperture_s,
    )
    if not 0 < rhythm.duty <= 1:
        return []
    try:
        plan_code(settings, rhythm)
    except CodeRefused as error:
        key = "every" if isinstance(error, CodeTooLong) else "chip"
        return [(("blanker", key), str(error))]
    except ValueError as error:
        return [(("blanker", "code"), str(error))]
    return []
