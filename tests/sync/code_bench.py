"""Records of a code with a hidden delay."""

import numpy as np

from sync.code import BlankingCode
from sync.code_wave import window_mean

START_NS = 1_700_000_000_000_000_000


class Played:
    """A code that was played: the nominal edges, and the true ones."""

    def __init__(self, seed, *, chip_s=0.0207, order=6, jitter_s=0.0, repeats=1):
        self.rng = np.random.default_rng([seed, 31])
        code = BlankingCode(order=order, chip_ns=round(chip_s * 1e9), repeats=repeats)
        self.edges_ns = code.edges_ns(START_NS)
        nominal = (self.edges_ns - START_NS) / 1e9
        self.own_s = jitter_s * self.rng.standard_normal(len(nominal))
        self.true_s = nominal + self.own_s
        self.chip_s = chip_s

    def stamps(self, t_s, delay_s, rate=0.0):
        late_s = delay_s + rate * (t_s - self.true_s[-1] / 2)
        return START_NS + np.round((t_s + late_s) * 1e9).astype(np.int64)

    def frames(self, delay_s, *, f=400.0, duty=0.9, snr=100.0, rise_s=0.0, rate=0.0, drift=0.0):
        t = np.arange(-1.0, self.true_s[-1] + 1.0, 1 / f) + self.rng.uniform(0, 1 / f)
        lit = window_mean(t, t + duty / f, self.true_s, rise_s=rise_s)
        lit = lit * (1 + drift * t / self.true_s[-1])
        sums = 500 + 1e6 * (lit + self.rng.standard_normal(len(t)) / snr)
        return self.stamps(t, delay_s, rate), self.stamps(t + duty / f, delay_s, rate), sums

    def rows(self, delay_s, offsets_s, *, f=100.0, snr=100.0):
        t = np.arange(-1.0, self.true_s[-1] + 1.0, 1 / f)
        parts = [window_mean(t + o, t + o + 0.8 / f, self.true_s) for o in offsets_s]
        profile = np.linspace(0.5, 1.5, len(parts))
        clean = np.stack(parts, axis=1) * profile
        noisy = 1e4 * (clean + self.rng.standard_normal(clean.shape) / snr)
        return self.stamps(t, delay_s), self.stamps(t + 0.8 / f, delay_s), noisy

    def current(self, delay_s, *, fs=1000.0, tau_s=0.005, snr=5.0, step_A=1e-13, slow_A=5e-12):
        t = np.arange(-1.0, self.true_s[-1] + 1.0, 1 / fs)
        wave = step_A * window_mean(t, t + 1 / fs, self.true_s, tau_s=tau_s)
        slow = slow_A * np.exp(-np.maximum(t, -1) / max(self.true_s[-1], 1e-9))
        value = wave + slow + abs(step_A) / snr * self.rng.standard_normal(len(t))
        aperture = np.full(len(t), round(1e9 / fs), np.int64)
        return self.stamps(t + 0.5 / fs, delay_s), aperture, value
