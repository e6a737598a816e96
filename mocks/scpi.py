"""The grammar of SCPI, as far as the simulated instruments need it."""

import math

# Long forms to short ones; a header may be written with any mixture of both.
_SHORT = {
    "SOURCE": "SOUR", "CURRENT": "CURR", "VOLTAGE": "VOLT", "LEVEL": "LEV",
    "RANGE": "RANG", "FUNCTION": "FUNC", "SENSE": "SENS", "PROTECTION": "PROT",
    "OUTPUT": "OUTP", "SMODE": "SMOD", "SYSTEM": "SYST", "ERROR": "ERR",
    "FORMAT": "FORM", "ELEMENTS": "ELEM", "CONCURRENT": "CONC", "CLEAR": "CLE",
    "AZERO": "AZER", "STATE": "STAT", "RSENSE": "RSEN", "LFREQUENCY": "LFR",
    "NPLCYCLES": "NPLC", "AVERAGE": "AVER", "MEDIAN": "MED", "MEASURE": "MEAS",
    "TRIPPED": "TRIP", "RESET": "RES", "DELAY": "DEL", "IMMEDIATE": "IMM",
    "AMPLITUDE": "AMPL", "TRIGGER": "TRIG", "COUNT": "COUN", "ILINE": "ILIN",
    "OLINE": "OLIN", "BORDER": "BORD", "INITIATE": "INIT", "FETCH": "FETC", "ABORT": "ABOR",
}  # fmt: skip

# Nodes that may be left out.
_OPTIONAL = {
    "SOUR:CURR:LEV:IMM:AMPL": "SOUR:CURR",
    "SOUR:VOLT:LEV:IMM:AMPL": "SOUR:VOLT",
    "SOUR:CURR:LEV": "SOUR:CURR",
    "SOUR:VOLT:LEV": "SOUR:VOLT",
    "SOUR:FUNC:MODE": "SOUR:FUNC",
    "SENS:VOLT:PROT:LEV": "SENS:VOLT:PROT",
    "SENS:CURR:PROT:LEV": "SENS:CURR:PROT",
    "SENS:CURR:DC:RANG": "SENS:CURR:RANG",
    "SENS:VOLT:DC:RANG": "SENS:VOLT:RANG",
    "SENS:AVER:STAT": "SENS:AVER",
    "SENS:MED:STAT": "SENS:MED",
    "SYST:AZER": "SYST:AZER:STAT",
    "OUTP:STAT": "OUTP",
    "FORM": "FORM:DATA",
    "INIT:IMM": "INIT",
}


class ScpiError(Exception):
    """An entry for the error queue."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f'{code:+d},"{text}"')


def words(line: str) -> list[str]:
    """Split a line into its commands."""
    return [part.strip() for part in line.split(";") if part.strip()]


def short_form(header: str) -> str:
    """Return a header in upper case, in short form, without what may be left out."""
    query = "?" if header.endswith("?") else ""
    nodes = header.rstrip("?").lstrip(":").upper().split(":")
    short = ":".join(_SHORT.get(node, node) for node in nodes)
    return _OPTIONAL.get(short, short) + query


def number(text: str) -> float:
    """Read a numeric parameter."""
    if not text:
        raise ScpiError(-109, "Missing parameter")
    try:
        value = float(text)
    except ValueError:
        raise ScpiError(-104, "Data type error") from None
    if not math.isfinite(value):
        raise ScpiError(-222, "Parameter data out of range")
    return value


def boolean(text: str) -> bool:
    """Read ON, OFF, 1 or 0."""
    known = {"ON": True, "1": True, "OFF": False, "0": False}
    try:
        return known[text.strip().upper()]
    except KeyError:
        raise ScpiError(-224, "Illegal parameter value") from None
