"""What each kind of scene adds to the numbers of a scenario.

Apart from the scenes themselves: who names a scenario need not load what draws it.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneParameters:
    """What a scene of its own adds to the numbers of cell and camera."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayersParameters(SceneParameters):
    """Nothing of its own: film and front are the cell's, contrast and edges the camera's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilesParameters(SceneParameters):
    """An interface that moves, broadens and steepens as charge crosses the cell.

    Parameters
    ----------
    place_ratio
        Where the interface stands when the cell is new, as a share of the field's width.
    left_level, right_level
        Of the map, as shares of the dose of a pixel.
    interface_width_m
        Gaussian sigma of the step when the cell is new.
    moves_ratio
        By how much the interface moves to the right, of what the cell's front moves.
    broadens_m
        What the square of the width grows by, for each metre that the front moves.
    drops_per_m
        By how much the right level falls for each metre that the front moves.
    map_texture_ratio, contact_texture_ratio
        How coarse grains stand out: around the interface, and in the contacts, which fill
        an eighth of the field on each side.
    """

    place_ratio: float = 0.5
    left_level: float = 0.8
    right_level: float = 0.5
    interface_width_m: float = 10e-9
    moves_ratio: float = 0.0
    broadens_m: float = 0.0
    drops_per_m: float = 0.0
    map_texture_ratio: float = 0.01
    contact_texture_ratio: float = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticlesParameters(SceneParameters):
    """A mosaic of particles on a thin support.

    Parameters
    ----------
    columns, rows
        Of particles, which stand about on a grid.
    radius_px
        Mean radius; each particle is an ellipse of its own.
    support_level, pristine_level, converted_level
        Of the image, as shares of the dose of a pixel.
    active_ratio
        Share of the whole that converts at a time.
    particle_texture_ratio
        How coarse grains stand out.
    """

    columns: int = 6
    rows: int = 4
    radius_px: float = 13.0
    support_level: float = 0.25
    pristine_level: float = 0.45
    converted_level: float = 0.63
    active_ratio: float = 0.1
    particle_texture_ratio: float = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class FringesParameters(SceneParameters):
    """What the fringes are like.

    Parameters
    ----------
    spacing_m
        From fringe to fringe.
    fringe_ratio
        Amplitude of the fringes, of the mean.
    speckle_ratio
        How coarse the grains of what is amorphous stand out.
    direction_rad
        In which the fringes follow each other, from the x axis.
    strained_per_m
        Relative change of the spacing for each metre that the cell's front moves.
    """

    spacing_m: float = 2.48e-10
    fringe_ratio: float = 0.2
    speckle_ratio: float = 0.03
    direction_rad: float = 0.4
    strained_per_m: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GrainsParameters(FringesParameters):
    """Inactive lithium in its electrolyte's decomposition layer, in cryo-microscopy.

    Parameters
    ----------
    carbonate
        0 for a highly concentrated electrolyte, which leaves few large grains of metal;
        other than 0 for a carbonate, which leaves many small ones.
    """

    carbonate: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowingParameters(FringesParameters):
    """A layer that grows from a surface on the left into a crystal of another spacing.

    Parameters
    ----------
    layer_m
        Thickness when the cell is new.
    grows_ratio
        By how much it grows, of what the cell's front moves.
    host_spacing_m
        Of the crystal that it grows into.
    """

    layer_m: float = 2.5e-9
    grows_ratio: float = 0.1
    host_spacing_m: float = 4.7e-10


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedParameters(FringesParameters):
    """A crystal that the beam makes amorphous, domain by domain.

    Parameters
    ----------
    domain_px
        Distance between the middles of two domains.
    damage_dose_e_m2
        After which a share 1/e of the domains is left.
    """

    domain_px: float = 64.0
    damage_dose_e_m2: float = 2e22


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthParameters(SceneParameters):
    """What the field looks like: an electrode on each side, an electrolyte between them.

    Parameters
    ----------
    object_contrast
        Relative brightness of lithium beside the electrolyte.
    diameter_m
        Of whisker or branches, which are round.
    start_m
        Length when the cell is new.
    electrode_ratio
        Share of the width of the field that each electrode takes.
    electrode_level, electrolyte_level
        Transmissions.
    electrode_texture_ratio, electrolyte_texture_ratio
        How coarse grains stand out.
    tilt_rad
        Of whisker or trunk against the normal of the electrode.
    layer_m
        Thickness of the decomposition layer around lithium; what is stripped leaves it
        behind, and it fills the place.
    layer_contrast
        Relative brightness of that layer beside the electrolyte.
    """

    object_contrast: float = 0.25
    diameter_m: float = 120e-9
    start_m: float = 80e-9
    electrode_ratio: float = 0.12
    electrode_level: float = 0.3
    electrolyte_level: float = 0.6
    electrode_texture_ratio: float = 0.15
    electrolyte_texture_ratio: float = 0.015
    tilt_rad: float = 0.12
    layer_m: float = 0.0
    layer_contrast: float = 0.12


@dataclass(frozen=True, slots=True, kw_only=True)
class WhiskerParameters(GrowthParameters):
    """One straight whisker with a round end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DendriteParameters(GrowthParameters):
    """A trunk with branches.

    Parameters
    ----------
    branches
        That leave the trunk, alternately to both sides.
    spacing_m
        Along the trunk, from one to the next.
    dead_branches
        How many of them lose their contact when stripping begins, from the first on.
    """

    branches: int = 5
    spacing_m: float = 260e-9
    dead_branches: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class NanowireParameters(SceneParameters):
    """A wire that swells evenly over its length.

    Parameters
    ----------
    length_m, diameter_m
        Of the wire without lithium.
    volume_growth, length_growth
        By how much of themselves they grow until all is lithiated.
    fracture_share
        Lithiated share at which a crack opens across the wire; more than 1 for never.
    crack_m, opening_m
        Width of the crack when it opens, and by how much it is wider at the end: both parts
        of the wire move apart.
    wire_transmission, lithiated_transmission
        Of the wire before and after.
    """

    length_m: float = 360e-9
    diameter_m: float = 60e-9
    volume_growth: float = 2.8
    length_growth: float = 0.03
    fracture_share: float = 2.0
    crack_m: float = 8e-9
    opening_m: float = 0.0
    wire_transmission: float = 0.45
    lithiated_transmission: float = 0.55

    @property
    def volume_m3(self) -> float:
        """Of the wire without lithium, a cylinder."""
        return math.pi * self.diameter_m**2 / 4 * self.length_m


@dataclass(frozen=True, slots=True, kw_only=True)
class ReactingNanowireParameters(SceneParameters):
    """A wire that stands on its electrode at the left, from where it reacts.

    Parameters
    ----------
    length_m, diameter_m
        Of the pristine wire.
    length_growth, diameter_growth
        By how much of itself what has reacted is longer and wider.
    front_width_m
        Over which the wire widens (Gaussian sigma).
    wire_transmission, reacted_transmission
        Before and behind the front.
    """

    length_m: float = 240e-9
    diameter_m: float = 60e-9
    length_growth: float = 0.6
    diameter_growth: float = 0.45
    front_width_m: float = 10e-9
    wire_transmission: float = 0.55
    reacted_transmission: float = 0.40

    @property
    def volume_m3(self) -> float:
        """Of the pristine wire, a cylinder."""
        return math.pi * self.diameter_m**2 / 4 * self.length_m


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionParameters(SceneParameters):
    """How a film looks before and after, and how it gets there.

    Parameters
    ----------
    by_front
        1 for a front from the left, 0 for everywhere at once.
    front_width_m
        Of the front (Gaussian sigma).
    grain_m
        Grain scale after: half width, in full, of the texture's autocorrelation.
    grain_ratio
        Relative spread of the transmission by the grains.
    pristine_transmission, converted_transmission
        Before and after, in the mean.
    pristine_texture
        Relative spread of the transmission before, on the scale of the camera's own grains.
    """

    by_front: float = 1.0
    front_width_m: float = 8e-9
    grain_m: float = 6e-9
    grain_ratio: float = 0.15
    pristine_transmission: float = 0.60
    converted_transmission: float = 0.52
    pristine_texture: float = 0.04
