"""What is stored of the readings that a guardian sends, and of what comes with them."""

import numpy as np
from numpy.typing import NDArray

from potentiostat.protocol import ClockExchange
from potentiostat.segments import Step
from runner.blanking import RhythmMeter
from runner.experiment import Experiment
from runner.messages import Block
from runner.record_settings import RULE_KIND, Watch
from runner.rows import Thinner, session_rows
from runner.run_notes import RunNotes
from runner.temperature_record import TemperatureRecord
from session.recorder import Recorder
from sync.pairs import EXCHANGE_DTYPE


class ReadingRecord:
    """Stores block after block: the rows that the plan wants, clocks, temperatures and gaps.

    Parameters
    ----------
    recorder
        Open.
    notes
        Told of readings that are missing.
    rhythm
        Told of all readings where the beam is blanked by a code.
    """

    def __init__(
        self, experiment: Experiment, recorder: Recorder, notes: RunNotes, rhythm: RhythmMeter
    ) -> None:
        self._recorder = recorder
        self._notes = notes
        self._rhythm = None if experiment.blanking is None else rhythm
        self._thinner = Thinner()
        self._watch = Watch(experiment.record.rules)
        self._temperature = TemperatureRecord(recorder, experiment.envelope)
        self._taken = 0  # number of the guardian's last turn that was heard of

    async def take(self, block: Block, step: Step | None, *, cycle: int) -> NDArray[np.void]:
        """Store a block, and return all of its readings.

        Parameters
        ----------
        step
            That it was read in; None between steps.

        Returns
        -------
        ndarray
            Of `SESSION_SAMPLE_DTYPE`, shape (n,).
        """
        missing = await self._note_missing(block)
        rows = session_rows(block, cycle)
        rows["left_out"][:1] = missing  # they are in the charge all the same
        if self._rhythm is not None:
            for row in rows:
                self._rhythm.reading(int(row["t_ns"]), float(row["aperture_s"]))
        await self._store(self._thinner.take(rows, step))
        for t_ns, rule in self._watch.look(rows):
            await self._recorder.event(t_ns, RULE_KIND, "runner", f"{rule}: frames are stored")
        if block.exchanges:
            await self._store_exchanges(block.exchanges)
        if block.temperatures:
            await self._temperature.take(block.temperatures)
        return rows

    async def flush(self) -> None:
        """Store what waited for more readings."""
        await self._store(self._thinner.flush())

    async def _store(self, rows: NDArray[np.void]) -> None:
        if len(rows):
            await self._recorder.samples(rows)

    async def _store_exchanges(self, exchanges: tuple[ClockExchange, ...]) -> None:
        stamps = np.zeros(len(exchanges), EXCHANGE_DTYPE)
        for stamp, exchange in zip(stamps, exchanges, strict=True):
            device_ns = round(exchange.device_time_s * 1e9)
            stamp["t0_ns"], stamp["t3_ns"] = exchange.sent_ns, exchange.received_ns
            stamp["t1_ns"] = stamp["t2_ns"] = device_ns
        await self._recorder.exchanges("potentiostat", stamps)

    async def _note_missing(self, block: Block) -> int:
        """Return how many readings the guardian gave up as this process did not listen."""
        missing = block.first - self._taken - 1
        self._taken = block.sequence
        if missing:
            t_ns = int(block.samples["read_start_ns"][0]) if len(block.samples) else 0
            await self._notes.missing(t_ns, missing)
        return missing
