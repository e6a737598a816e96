"""Messages and frame headers as a Merlin detector writes them."""

from datetime import UTC, datetime

LOCAL_TIME_NS = 3600 * 1_000_000_000  # by which the detector's PC is ahead of UTC
CHIP = (
    ",3RX,175,511,000,000,000,000,000,000,125,255,125,125,100,100,082,100,087,030,128,004,255,129"
)
CHIP += ",128,176,168,511,511"
THRESHOLDS = "1.200000E+2,5.110000E+2" + 6 * ",0.000000E+0"


def stamp_text(t_ns: int, *, digits: int = 9) -> str:
    """Return a time since 1970 as the detector writes it, without its zone."""
    seconds, part_ns = divmod(t_ns, 1_000_000_000)
    day = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{day}.{part_ns:09d}"[: 20 + digits]


def mib_header(
    counter: int,
    *,
    height: int,
    width: int,
    code: str,
    depth: int,
    stamp_ns: int,
    exposure_ns: int,
    chips: int = 1,
) -> bytes:
    """Return a frame's header: 384 bytes for one chip, 768 for four."""
    size = 384 if chips == 1 else 768
    layout, mask = ("1x1", "01") if chips == 1 else ("2x2", "0F")
    local = stamp_text(stamp_ns + LOCAL_TIME_NS, digits=6)
    utc = stamp_text(stamp_ns).replace(" ", "T")
    text = (
        f"MQ1,{counter:06d},{size:05d},{chips:02d},{width:04d},{height:04d},{code},   {layout},"
        f"{mask},{local},{exposure_ns / 1e9:.6f},0,0,0,{THRESHOLDS}{CHIP * chips},"
        f"MQ1A,{utc}Z,{exposure_ns}ns,{depth},"
    )
    return text.encode("ascii").ljust(size, b"\0")


def framed(body: bytes) -> bytes:
    """Return a message: its length counts the comma before the body."""
    return b"MPX,%010d," % (len(body) + 1) + body
