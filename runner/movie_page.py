"""One picture of a movie: a frame with what was seen in it, beside the traces up to then."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 1280, 720  # even, as encoders ask for
PANE = (24, 76, 648, 560)  # of the frame: left, top, right, bottom
PLOTS = (764, 84, 1256, 684)
GAP_PX = 30  # between two plots
FINER = 2  # lines are drawn so many times larger first: smooth edges
GROUND, INK, SOFT, LINE = "#0b0e12", "#dfe6ee", "#8493a3", "#242d37"
CURSOR, EDGE = "#ff6aa5", "#ffd54f"
TRACKS = ("#40e0aa", "#4cd4ff", "#ff9d62", "#d0a6ff")
FONTS = ("DejaVuSans.ttf", "segoeui.ttf", "Arial.ttf", "Helvetica.ttc")
PLAIN = str.maketrans({"µ": "u", "²": "^2", "³": "^3", "Å": "A", "·": "-", "±": "+-"})

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One trace.

    Parameters
    ----------
    t_s, value
        Shape (n,); NaN where nothing is known.
    low, high
        One sigma below and above; None where there is none.
    """

    name: str
    unit: str
    colour: str
    t_s: NDArray[np.float64]
    value: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None


class MoviePage:
    """Draws the pictures of one movie.

    Parameters
    ----------
    plots
        From above to below; none for frames alone.
    span_s
        First and last time that is shown.
    shape
        Height and width of a frame.
    pixel_m
        NaN where unknown: there is no scale bar then.
    """

    def __init__(
        self,
        title: str,
        plots: Sequence[Plot],
        *,
        span_s: tuple[float, float],
        shape: tuple[int, int],
        pixel_m: float,
    ) -> None:
        self._plots, self._span_s, self._pixel_m = plots, span_s, pixel_m
        self._fonts = {size: _font(size) for size in (15, 17, 22)}
        left, top, right, bottom = PANE
        height, width = shape
        self.scale = min((right - left) / width, (bottom - top) / height)
        self._size = max(1, round(width * self.scale)), max(1, round(height * self.scale))
        self._boxes = list(_boxes(len(plots)))
        self._still = self._draw_still(title)

    def picture(
        self,
        grey: NDArray[np.uint8],
        t_s: float,
        *,
        marks: Sequence[dict[str, Any]] = (),
        row: int = 0,
        lines: Sequence[str] = (),
    ) -> Image.Image:
        """Return one picture, `WIDTH` by `HEIGHT`, RGB.

        Parameters
        ----------
        grey
            The frame, shape (height, width), binned or not.
        marks, row
            What is drawn, as `runner.report_tracks.marks_content` tells it, and which of it.
        lines
            Written below the frame.
        """
        page = self._still.copy()
        draw = ImageDraw.Draw(page)
        enlarged = Image.Resampling.NEAREST if self.scale > 1 else Image.Resampling.BOX
        frame = Image.fromarray(grey).resize(self._size, enlarged).convert("RGB")
        self._draw_marks(ImageDraw.Draw(frame), marks, row)
        if math.isfinite(self._pixel_m):
            self._draw_bar(ImageDraw.Draw(frame))
        page.paste(frame, PANE[:2])
        self._text(draw, (WIDTH - 24, 26), f"t = {t_s:.2f} s", 22, INK, anchor="ra")
        top = PANE[1] + self._size[1] + 14
        for line in lines:
            self._text(draw, (PANE[0], top), line, 17, INK)
            top += 25
        for plot, box in zip(self._plots, self._boxes, strict=True):
            self._draw_cursor(draw, plot, box, t_s)
        return page

    # --- what stands still ------------------------------------------------------------------

    def _draw_still(self, title: str) -> Image.Image:
        fine = Image.new("RGB", (WIDTH * FINER, HEIGHT * FINER), GROUND)
        draw = ImageDraw.Draw(fine)
        for plot, box in zip(self._plots, self._boxes, strict=True):
            self._draw_plot(draw, plot, box)
        page = fine.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        draw = ImageDraw.Draw(page)
        self._text(draw, (PANE[0], 26), title[:80], 22, INK)
        for number, (plot, box) in enumerate(zip(self._plots, self._boxes, strict=True)):
            self._draw_axes(draw, plot, box, is_last=number == len(self._plots) - 1)
        return page

    def _draw_plot(self, draw: ImageDraw.ImageDraw, plot: Plot, box: tuple[int, ...]) -> None:
        place = self._places(plot, box)
        for low, high in ((plot.low, plot.high),):
            if low is not None and high is not None:
                for run in _known_runs(low + high):
                    above = [place(plot.t_s[i], high[i]) for i in run]
                    below = [place(plot.t_s[i], low[i]) for i in reversed(run)]
                    draw.polygon([*above, *below], fill=_mixed(plot.colour, 0.28))
        for run in _known_runs(plot.value):
            points = [place(plot.t_s[i], plot.value[i]) for i in run]
            if len(points) > 1:
                draw.line(points, fill=plot.colour, width=2 * FINER - 1, joint="curve")
            else:
                _circle(draw, points[0], 1.5 * FINER, fill=plot.colour)

    def _draw_axes(
        self, draw: ImageDraw.ImageDraw, plot: Plot, box: tuple[int, ...], *, is_last: bool
    ) -> None:
        left, top, right, bottom = box
        low, high = _range(plot)
        draw.line([(left, top), (left, bottom), (right, bottom)], fill=LINE, width=1)
        for value in _ticks(low, high, 4):
            y = bottom - (value - low) / (high - low) * (bottom - top)
            draw.line([(left - 5, y), (left, y)], fill=SOFT, width=1)
            self._text(draw, (left - 9, y), f"{value:.6g}", 15, SOFT, anchor="rm")
        name = f"{plot.name} ({plot.unit})" if plot.unit else plot.name
        self._text(draw, (left + 6, top - 21), name, 15, plot.colour)
        if is_last:
            first, last = self._span_s
            for t_s in _ticks(first, last, 6):
                x = left + (t_s - first) / max(last - first, 1e-9) * (right - left)
                draw.line([(x, bottom), (x, bottom + 5)], fill=SOFT, width=1)
                self._text(draw, (x, bottom + 8), f"{t_s:.6g} s", 15, SOFT, anchor="ma")

    # --- what moves ----------------------------------------------------------------------------

    def _draw_cursor(
        self, draw: ImageDraw.ImageDraw, plot: Plot, box: tuple[int, ...], t_s: float
    ) -> None:
        place = self._places(plot, box, finer=1)
        x, _ = place(t_s, _range(plot)[0])
        draw.line([(x, box[1]), (x, box[3])], fill=CURSOR, width=1)
        nearest = int(np.argmin(np.abs(plot.t_s - t_s)))
        if math.isfinite(plot.value[nearest]):
            _circle(draw, place(t_s, plot.value[nearest]), 4, fill=plot.colour, outline=INK)

    def _draw_marks(
        self, draw: ImageDraw.ImageDraw, marks: Sequence[dict[str, Any]], row: int
    ) -> None:
        tracks = list(dict.fromkeys(mark["track"] for mark in marks))
        for mark in marks:
            axes = {axis: mark[axis][row] for axis in "xy" if mark[axis] is not None}
            if None in axes.values():
                continue
            at = {axis: (value + 0.5) * self.scale for axis, value in axes.items()}
            ink = TRACKS[tracks.index(mark["track"]) % len(TRACKS)] if mark["moves"] else EDGE
            if mark["state"] is not None and mark["state"][row] is not None:
                ink = _tint(mark["state"][row])
            if len(at) == 2:
                radius = max((mark["radius"] or 0.0) * self.scale, 6.0)
                _circle(draw, (at["x"], at["y"]), radius, outline=ink, width=2)
            else:
                self._draw_line(draw, at, ink, dashed=not mark["moves"])

    def _draw_line(
        self, draw: ImageDraw.ImageDraw, at: dict[str, float], ink: str, *, dashed: bool
    ) -> None:
        width, height = self._size
        length = height if "x" in at else width
        for start in range(0, length, 14):
            end = start + (8 if dashed else 14)
            if "x" in at:
                draw.line([(at["x"], start), (at["x"], end)], fill=ink, width=2)
            else:
                draw.line([(start, at["y"]), (end, at["y"])], fill=ink, width=2)

    def _draw_bar(self, draw: ImageDraw.ImageDraw) -> None:
        width, height = self._size
        length_nm, text = bar_length(width / self.scale * self._pixel_m)
        bar_px = length_nm * 1e-9 / self._pixel_m * self.scale
        wide = max(bar_px, draw.textlength(self._written(text), font=self._fonts[15]))
        draw.rectangle((8, height - 40, 24 + wide, height - 8), fill=GROUND)
        self._text(draw, (16, height - 37), text, 15, "#ffffff")
        draw.rectangle((16, height - 16, 16 + bar_px, height - 12), fill="#ffffff")

    # --- small things --------------------------------------------------------------------------

    def _places(self, plot: Plot, box: tuple[int, ...], *, finer: int = FINER) -> Any:
        left, top, right, bottom = (finer * edge for edge in box)
        first, last = self._span_s
        low, high = _range(plot)

        def place(t_s: float, value: float) -> tuple[float, float]:
            x = left + (t_s - first) / max(last - first, 1e-9) * (right - left)
            return float(x), float(bottom - (value - low) / (high - low) * (bottom - top))

        return place

    def _written(self, text: str) -> str:
        # The font that comes with Pillow has letters of English alone.
        name = getattr(self._fonts[15], "path", "")
        return text if isinstance(name, str) and name else text.translate(PLAIN)

    def _text(  # one private step
        self,
        draw: ImageDraw.ImageDraw,
        at: tuple[float, float],
        text: str,
        size: int,
        ink: str,
        anchor: str = "la",
    ) -> None:
        draw.text(at, self._written(text), font=self._fonts[size], fill=ink, anchor=anchor)


def _circle(draw: ImageDraw.ImageDraw, at: tuple[float, float], radius: float, **ink: Any) -> None:
    x, y = at
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), **ink)


def bar_length(field_m: float) -> tuple[float, str]:
    """Return a round length in nm of about a fifth of the field, and its name."""
    goal_nm = field_m * 1e9 / 5
    power = 10.0 ** math.floor(math.log10(goal_nm))
    length_nm = next(k * power for k in (5, 2, 1) if k * power <= goal_nm * (1 + 1e-9))
    text = f"{length_nm / 1000:g} µm" if length_nm >= 1000 else f"{length_nm:g} nm"
    return length_nm, text


def _boxes(count: int) -> Iterator[tuple[int, int, int, int]]:
    left, top, right, bottom = PLOTS
    each = (bottom - top + GAP_PX) / max(count, 1)
    for number in range(count):
        begin = top + number * each
        yield left, round(begin), right, round(begin + each - GAP_PX)


def _range(plot: Plot) -> tuple[float, float]:
    known = plot.value[np.isfinite(plot.value)]
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    half = max((high - low) / 2, 1e-6 * max(abs(low), abs(high)), 1e-30)
    middle = (low + high) / 2
    return middle - 1.1 * half, middle + 1.1 * half


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Return round values within a range."""
    raw = max(high - low, 1e-30) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(k * power for k in (1, 2, 5, 10) if k * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _known_runs(values: NDArray[np.float64]) -> Iterator[list[int]]:
    """Yield the stretches in which all values are known."""
    known = np.flatnonzero(np.isfinite(values))
    for run in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1):
        if len(run):
            yield run.tolist()


def _mixed(colour: str, share: float) -> tuple[int, ...]:
    parts = zip(_rgb(colour), _rgb(GROUND), strict=True)
    return tuple(round(share * a + (1 - share) * b) for a, b in parts)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[k : k + 2], 16) for k in (1, 3, 5))


def _tint(state: float) -> str:
    """Return blue for 0, orange for 1."""
    share = min(max(state, 0.0), 1.0)
    parts = zip(_rgb("#4f8dff"), _rgb("#ff9d4d"), strict=True)
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in parts)


def _font(size: int) -> Font:
    for name in FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)
