"""What images ask of the steps of a plan: to wait, to end, or to get less current."""

from collections.abc import Callable

from runner.experiment import Experiment
from runner.image_rules import DOSE, ImageRule
from runner.image_stops import ImageStop, ImageStops, patience_for
from runner.ionic_flow import IonicFlow
from runner.keep_rules import Keep
from runner.messages import Block, HolderTerms, StartStep
from runner.moderation import Moderated, Moderation
from runner.plan import Plan
from runner.tracking import Seen


class ImageWatch:
    """Knows for each step of a plan what it has to do with images.

    Pure: it is told of steps, readings and frames, and answers.

    Parameters
    ----------
    now_ns
        Reads the host clock.
    holder
        What it takes of the current; None where it was not measured.
    frame_rate_Hz
        Of the camera, nominal; NaN where unknown.
    """

    def __init__(
        self,
        experiment: Experiment,
        plan: Plan,
        *,
        now_ns: Callable[[], int],
        holder: HolderTerms | None,
        frame_rate_Hz: float,
    ) -> None:
        self._experiment = experiment
        self._plan = plan
        flow, patience = IonicFlow(holder), patience_for(frame_rate_Hz)
        self._stops = ImageStops(now_ns=now_ns, flow=flow, patience=patience)
        self._moderation = Moderation(now_ns=now_ns, flow=flow, patience=patience)

    # --- what a step has to do with images ----------------------------------------------

    def rules(self, index: int) -> tuple[ImageRule, ...]:
        """Return by which images a step may end."""
        rules, place = self._experiment.image_rules, self._plan.in_file(index)
        return rules[place] if place < len(rules) else ()

    def keep(self, index: int) -> Keep:
        """Return what a step keeps by less current."""
        keeps, place = self._experiment.keeps, self._plan.in_file(index)
        return keeps[place] if place < len(keeps) else Keep()

    def not_seen(self, index: int) -> str:
        """Return why a step may not begin yet; empty where it may."""
        tracks = [rule.track for rule in self.rules(index) if rule.quantity != DOSE]
        tracks += [rule.track for rule in self.keep(index).rules]
        return self._stops.not_seen(dict.fromkeys(tracks))

    # --- what it is told, and answers ----------------------------------------------------

    def begin(self, message: StartStep) -> float:
        """Note that a step begins; return the share of its current with which it does."""
        self._stops.begin(self.rules(message.index))
        return self._moderation.begin(self.keep(message.index), message.step.current_A)

    def end(self) -> None:
        """Note that no step is on."""
        self._stops.end()
        self._moderation.end()

    def readings(self, block: Block) -> ImageStop | None:
        """Take readings; say what frames that do not come mean."""
        samples = block.samples
        if len(samples):
            self._stops.readings(
                samples["read_start_ns"],
                samples["voltage_V"],
                samples["current_A"],
                rests=block.step < 0 or self._plan[block.step].is_rest,
            )
        return self._stops.look()

    def moderated(self) -> Moderated | None:
        """Return another share of the step's current, where one is due."""
        return self._moderation.look()

    def seen(self, seen: Seen) -> ImageStop | None:
        """Take what the trackers saw in a frame."""
        self._moderation.seen(seen)
        return self._stops.seen(seen)

    def dose(self, index: int, t_ns: int, dose_e_m2: float) -> ImageStop | None:
        """Take the dose of the specimen at the end of a frame."""
        return self._stops.dose(index, t_ns, dose_e_m2)
