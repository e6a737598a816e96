"""How well a blanking code can be read, before it is played."""

import math
from collections.abc import Iterator

from potentiostat.records import RangeSpec
from runner.blanking_settings import UNKNOWN_DUTY, Rhythm, plan_code
from runner.budget import Readings
from runner.experiment import Experiment
from runner.findings import Finding, ok
from runner.format import in_unit
from sync.code import CodeRefused

TOLD_SHARE = 0.02  # of the beam's current, that one wants to know it to


def blanking_code(experiment: Experiment, used: RangeSpec) -> Iterator[Finding]:
    """Show the bounds of both delays, and how small a beam's current one code tells.

    The run chooses the chip anew by what camera and meter are measured to do.
    """
    settings, camera = experiment.blanking, experiment.camera
    if settings is None or camera is None:
        return
    readings = Readings.of(experiment, used)
    window_s = experiment.potentiostat.nplc / experiment.potentiostat.line_frequency_Hz
    exposure_s = camera.options.exposure_s
    rhythm = Rhythm(
        frame_period_s=1 / camera.frame_rate_Hz,
        duty=UNKNOWN_DUTY if math.isnan(exposure_s) else exposure_s * camera.frame_rate_Hz,
        sample_interval_s=readings.each_s,
        aperture_s=window_s,
    )
    try:
        plan = plan_code(settings, rhythm)
    except (CodeRefused, ValueError):
        return  # what the file itself tells was judged when it was read
    code = plan.code
    yield ok(
        "blanking code",
        f"order {code.order}, {plan.edges} edges in {code.length_s:.4g} s; delay of the camera "
        f"± {in_unit(plan.camera_bound_s, 's', 2)} at best where a frame's sum is good to 1 %, of "
        f"the current ± {in_unit(plan.current_bound_s, 's', 2)} at best where the beam adds three "
        "times the noise of a reading and the range's time constant is known (1.5 to 1.8 times "
        "that where it is fitted)",
    )
    count = code.length_s / readings.each_s
    # Half of the readings are lit and half are dark; each half has a mean of its own.
    sigma_A = 2 * readings.current_sigma_A / math.sqrt(count)
    one, least = in_unit(readings.current_sigma_A, "A", 3), sigma_A / TOLD_SHARE
    yield ok(
        "the beam's current by one code",
        f"± {in_unit(sigma_A, 'A', 3)} at best: {one} rms in {count:.0f} readings, which is "
        f"{100 * TOLD_SHARE:g} % of {in_unit(least, 'A', 3)}; at a held voltage only. A code of "
        "four times the length tells half of that",
    )
