"""Looks whether what a plan asks of the temperature can be measured."""

import math
from collections.abc import Iterator

from potentiostat.protocol import Potentiostat
from potentiostat.registry import potentiostat_class, potentiostat_names
from potentiostat.thermometer import ThermometerSpec
from runner.experiment import Experiment
from runner.findings import Finding, Severity, ok

Key = tuple[str | int, ...]
WIRED = ("potentiostat", "thermocouple")
LIMIT = ("limits", "temperature")


def check_temperature(experiment: Experiment, driver: type[Potentiostat]) -> Iterator[Finding]:
    """Refuse limits and rules of a temperature that nobody measures, or that cannot be met."""
    spec, wired = driver.thermometer, experiment.potentiostat.thermocouple
    asked = list(_asked(experiment))
    if spec is None:
        keys = ([(WIRED, "a thermocouple")] if wired else []) + [(k, what) for k, what, _ in asked]
        for key, what in keys:
            yield _refused(
                key,
                what,
                f"a {driver.model} measures no temperature; {_with_thermometer()} does, or leave "
                "it out",
            )
        return
    if wired:
        yield ok(
            "thermometer",
            f"{spec.sensor}, {_span(spec)}, ± {spec.error_K:.2g} K at most; asked once a second",
        )
    for key, what, temperatures_K in asked:
        if not wired:
            yield _refused(
                key,
                what,
                "no thermocouple is named; where one is wired write thermocouple = true under "
                "[potentiostat]",
            )
        elif beyond := [t for t in temperatures_K if not spec.holds(t)]:
            yield _refused(
                key, what, f"{beyond[0]:.5g} K is never seen; the {spec.sensor} has {_span(spec)}"
            )
        else:
            said = " and ".join(f"{t:.5g} K" for t in temperatures_K)
            yield ok(what, f"{said}, known to ± {spec.sigma_K:.2g} K (1 sigma)")


def _asked(experiment: Experiment) -> Iterator[tuple[Key, str, list[float]]]:
    """Yield what hangs on the temperature: its key, in words, and the temperatures."""
    envelope = experiment.envelope
    if envelope.limits_temperature:
        ends = (envelope.temperature_min_K, envelope.temperature_max_K)
        yield LIMIT, "limit of the temperature", [end for end in ends if math.isfinite(end)]
    for i, step in enumerate(experiment.steps):
        until = (*step.until, *(c for s in step.segments for c in s.until))
        rules = [c for c in until if c.needs_temperature]
        if rules:
            what = f"step {i + 1}: {', '.join(c.text for c in rules)}"
            yield ("step", i, "until"), what, [c.value for c in rules]


def _refused(key: Key, what: str, why: str) -> Finding:
    return Finding(severity=Severity.REFUSE, what=what, arithmetic=why, key=key)


def _span(spec: ThermometerSpec) -> str:
    return f"{spec.low_K:g} to {spec.high_K:g} K"


def _with_thermometer() -> str:
    """Name the drivers whose instruments measure a temperature."""
    names = [n for n in potentiostat_names() if potentiostat_class(n).thermometer is not None]
    return " or ".join(names)
