"""Named days at the microscope: every number of a simulated world in one place."""

import difflib
import math
from dataclasses import dataclass, field, fields, replace

from mocks.cell import CellParameters
from mocks.film import FilmParameters
from mocks.film_faults import FilmFaults
from mocks.scene_parameters import (
    ConversionParameters,
    DamagedParameters,
    DendriteParameters,
    FringesParameters,
    GrainsParameters,
    GrowingParameters,
    GrowthParameters,
    LayersParameters,
    NanowireParameters,
    ParticlesParameters,
    ProfilesParameters,
    ReactingNanowireParameters,
    SceneParameters,
    WhiskerParameters,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmuErrors:
    """How far a simulated source-measure unit is off, as shares of its data sheet.

    Each error is drawn once by the seed, evenly within the limits of the data sheet.

    Parameters
    ----------
    clock_rate_ratio
        Error of the instrument's oscillator, beside its counting of 1024 ticks.
    offset_change_A
        By how much the zero of every current range moves while the holder changes.
    current_lag_ratio
        Share of the range's time constant by which a measured current lags the one that
        flows while a voltage is held; 0 for a meter in which changes of level alone lag.
    """

    share_of_specification: float = 1.0
    clock_rate_ratio: float = 12e-6
    offset_change_A: float = 0.0
    current_lag_ratio: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraSettings:
    """A simulated camera and what it looks at.

    Parameters
    ----------
    exposure_ratio
        Share of the frame period that is exposed.
    clock_offset_s, clock_rate_ratio
        The camera's clock against the host's.
    dropped_ratio
        Share of frames that are lost before they are sent.
    front_contrast, edge_width_m
        Of the phase front, and the width (Gaussian sigma) of all edges.
    drift_m_per_root_s
        Size of the stage's random walk.
    exposure_line
        Trigger line of the source-measure unit that the exposure is wired to; 0 for none.
    """

    height: int = 160
    width: int = 400
    frame_rate_Hz: float = 5.0
    pixel_size_m: float = 2e-9
    dose_rate_e_m2_s: float = 1.5e20
    exposure_ratio: float = 0.98
    clock_offset_s: float = 4.217
    clock_rate_ratio: float = 50e-6
    dropped_ratio: float = 0.02
    front_contrast: float = 0.15
    edge_width_m: float = 5e-9
    drift_m_per_root_s: float = 0.25e-9
    fixed_pattern_ratio: float = 0.01
    exposure_line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BlankerSettings:
    """A simulated beam blanker: how late it obeys, always and at random, and how fast.

    In virtual time a command is answered at once, and obeyed this much later.
    """

    blanker_latency_s: float = 0.0
    blanker_jitter_s: float = 0.0
    blanker_rise_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatSettings:
    """How warm the simulated holder is, from the moment at which the cell is put in.

    The cell itself does not know: its constants are those of its own temperature.

    Parameters
    ----------
    holder_K
        To begin with.
    heating_K_s, heating_after_s
        How fast it is heated (or cooled) by its heater, and from when on.
    heated_by_K
        Most by which it is heated or cooled.
    thermocouple_opens_s
        When the thermocouple comes off; infinite for never.
    """

    holder_K: float = 298.15
    heating_K_s: float = 0.0
    heating_after_s: float = 0.0
    heated_by_K: float = 100.0
    thermocouple_opens_s: float = math.inf

    def temperature_K(self, mated_s: float) -> float:
        """Return the temperature so long after the cell was put in."""
        risen_K = self.heating_K_s * max(mated_s - self.heating_after_s, 0.0)
        return self.holder_K + max(-self.heated_by_K, min(risen_K, self.heated_by_K))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One simulated world."""

    name: str
    cell: CellParameters
    scene: SceneParameters = field(default_factory=LayersParameters)
    camera: CameraSettings = field(default_factory=CameraSettings)
    smu: SmuErrors = field(default_factory=SmuErrors)
    blanker: BlankerSettings = field(default_factory=BlankerSettings)
    heat: HeatSettings = field(default_factory=HeatSettings)
    faults: FilmFaults = field(default_factory=FilmFaults)


# Lithium that a boundary between LiFePO4 and FePO4 takes out: 22 800 mol/m^3, less what both
# phases can dissolve (5 % together).
LFP_STEP_MOL_M3 = 0.95 * 22_800.0


def _lco_lipon_li() -> Scenario:
    """LiCoO2 | LiPON | Li block of 5 um by 2 um in a holder that leaks.

    Resistances of the block row of a scale table for thin-film cells: LiPON at
    2.3e-6 S/cm and 1 um thick is 0.43 gigaohm, 100 ohm cm2 of charge transfer is
    1 gigaohm, on 10 um2.
    """
    area_m2 = 10e-12
    return Scenario(
        name="lco_lipon_li",
        cell=CellParameters(
            area_m2=area_m2,
            film_thickness_m=500e-9,
            front_start_m=60e-9,
            concentration_step_mol_m3=25_750.0,
            electrolyte_ohm=0.43e9,
            exchange_current_A=2.6 * area_m2,
            stray_F=150e-12,
            leak_ohm=1e12,
            dielectric_F=3e-12,
            dielectric_tau_s=15.0,
        ),
    )


def _lco_thin_film() -> Scenario:
    """LiCoO2 | LiPON | Li film of 1 mm by 1 mm, for instruments that cannot source pA.

    The cell of `_lco_lipon_li` on an area of 1e5 times: 1C is 0.35 uA.
    """
    area_m2 = 1e-6
    small = _lco_lipon_li()
    ratio = area_m2 / small.cell.area_m2
    return replace(
        small,
        name="lco_thin_film",
        cell=replace(
            small.cell,
            area_m2=area_m2,
            electrolyte_ohm=small.cell.electrolyte_ohm / ratio,
            exchange_current_A=small.cell.exchange_current_A * ratio,
        ),
    )


def _lco_solid_solution() -> Scenario:
    """LiCoO2 | LiPON | Li block whose film is one solid solution, from x = 0.75 on.

    Diffusion across the film takes 2500 s, charge transfer is slow (0.3 A/m2), and the
    holder is a good one: what leaks is a small part of the currents of a titration.
    """
    small = _lco_lipon_li()
    p, room_mol_m3 = small.cell, 51_218.0
    return replace(
        small,
        name="lco_solid_solution",
        cell=FilmParameters(
            area_m2=p.area_m2,
            film_thickness_m=p.film_thickness_m,
            front_start_m=0.25 * p.film_thickness_m,
            concentration_step_mol_m3=room_mol_m3,
            electrolyte_ohm=p.electrolyte_ohm,
            exchange_current_A=0.3 * p.area_m2,
            stray_F=p.stray_F,
            leak_ohm=1e14,
            dielectric_F=p.dielectric_F,
            dielectric_tau_s=p.dielectric_tau_s,
            diffusivity_m2_s=1e-16,
        ),
    )


def _with_scene(name: str, scene: SceneParameters, **camera: float) -> Scenario:
    """Return the block of `_lco_lipon_li` with something else in the field of its camera."""
    small = _lco_lipon_li()
    seen = replace(small.camera, **camera)  # type: ignore[arg-type]
    return replace(small, name=name, scene=scene, camera=seen)


def _lco_nasicon_potential() -> Scenario:
    """LiCoO2 | NASICON by electron holography: the potential drop grows with the charge."""
    scene = ProfilesParameters(interface_width_m=12e-9, drops_per_m=2e6)
    return _with_scene("lco_nasicon_potential", scene, height=96, width=256)


def _sno2_lvso_lco_profile() -> Scenario:
    """SnO2 | Li3.4V0.6Si0.4O4 | LiCoO2: a concentration that moves and broadens."""
    scene = ProfilesParameters(
        place_ratio=0.4,
        left_level=0.3,
        right_level=0.7,
        moves_ratio=0.5,
        broadens_m=1.1e-8,
    )
    return _with_scene("sno2_lvso_lco_profile", scene, height=96, width=256, pixel_size_m=3e-9)


def _li_lipon_interface() -> Scenario:
    """Li | LiPON: an interphase that widens where it stands."""
    scene = ProfilesParameters(
        left_level=0.85, right_level=0.55, interface_width_m=8e-9, broadens_m=8e-9
    )
    return _with_scene("li_lipon_interface", scene, height=96, width=256)


def _lfp_plate() -> Scenario:
    """LiFePO4 | LiPON | Li: a plate of 5 um by 2 um with a boundary: two phases, 3.42 V."""
    small = _lco_lipon_li()
    cell = replace(small.cell, concentration_step_mol_m3=LFP_STEP_MOL_M3, plateau_V=3.42)
    return replace(small, name="lfp_plate", cell=cell)


def _lfp_state_map() -> Scenario:
    """Particles of LiFePO4 that convert one after the other, 100 nm of film altogether."""
    plate = _lfp_plate()
    return replace(
        plate,
        name="lfp_state_map",
        cell=replace(plate.cell, film_thickness_m=100e-9, front_start_m=10e-9),
        scene=ParticlesParameters(),
        camera=replace(plate.camera, width=240),
    )


def _resolved(name: str, scene: FringesParameters) -> Scenario:
    """Return a world seen at 0.05 nm a pixel, by a stage that is calm."""
    return _with_scene(
        name,
        scene,
        height=256,
        width=256,
        pixel_size_m=5e-11,
        dose_rate_e_m2_s=1.25e23,
        frame_rate_Hz=2.0,
        drift_m_per_root_s=1e-11,
    )


def _inactive_li_cryo() -> Scenario:
    """Inactive lithium at 100 K; `carbonate` other than 0 for that electrolyte."""
    found = _resolved("inactive_li_cryo", GrainsParameters())
    return replace(found, heat=HeatSettings(holder_K=100.0))


def _layered_to_spinel() -> Scenario:
    """Spinel | layered oxide: the layer of spinel grows, and is seen by its (220) planes."""
    scene = GrowingParameters(spacing_m=2.87e-10, strained_per_m=6e4)
    return _resolved("layered_to_spinel", scene)


def _garnet_beam_damage() -> Scenario:
    """LLZO: a garnet, by its (400) planes, that turns amorphous under the beam."""
    scene = DamagedParameters(spacing_m=3.24e-10, damage_dose_e_m2=1e24)
    return _resolved("garnet_beam_damage", scene)


def _lithium_grows(name: str, scene: GrowthParameters, **camera: float) -> Scenario:
    """Return a cell in a good holder whose charge plates lithium in the field of its camera."""
    found = _with_scene(name, scene, dose_rate_e_m2_s=1e19, **camera)
    cell = replace(found.cell, stray_F=30e-12, leak_ohm=1e14, dielectric_F=0.5e-12)
    return replace(found, cell=cell)


def _li_whisker_solid() -> Scenario:
    """Return a lithium whisker that grows through a solid electrolyte; 5 pA are 60 nm/s."""
    return _lithium_grows("li_whisker_solid", WhiskerParameters(), pixel_size_m=4e-9)


def _li_dendrite_liquid() -> Scenario:
    """Return a lithium dendrite in a liquid: plated, stripped, and in part left behind."""
    scene = DendriteParameters(
        object_contrast=0.3, diameter_m=100e-9, tilt_rad=0.05, electrolyte_texture_ratio=0.008
    )
    return _lithium_grows(
        "li_dendrite_liquid", scene, pixel_size_m=5e-9, height=240, width=400, edge_width_m=7e-9
    )


def _wire_cell(volume_m3: float, length_m: float, lithium_mol_m3: float) -> CellParameters:
    """Return a cell with a nanowire for its film: its front is at the length it has converted.

    Resistances of the lamella row of a scale table for thin-film cells. A twentieth of
    the wire has lithium to begin with.
    """
    return CellParameters(
        area_m2=volume_m3 / length_m,
        film_thickness_m=length_m,
        front_start_m=0.05 * length_m,
        concentration_step_mol_m3=lithium_mol_m3,
        electrolyte_ohm=8.7e9,
        exchange_current_A=2.6 * 0.5e-12,
        stray_F=100e-12,
        leak_ohm=1e14,
        dielectric_F=1e-12,
        dielectric_tau_s=15.0,
    )


def _si_nanowire() -> Scenario:
    """Silicon nanowire that takes lithium from a LiCoO2 source: Si to Li3.75Si, + 280 %."""
    scene = NanowireParameters()
    return Scenario(
        name="si_nanowire",
        cell=_wire_cell(scene.volume_m3, scene.length_m, 311_000.0),
        scene=scene,
        camera=CameraSettings(height=128, width=256),
    )


def _sno2_nanowire() -> Scenario:
    """SnO2 nanowire with a reaction front that runs along it: SnO2 to Li2O and Li4.4Sn."""
    scene = ReactingNanowireParameters()
    return Scenario(
        name="sno2_nanowire",
        cell=_wire_cell(scene.volume_m3, scene.length_m, 387_000.0),
        scene=scene,
        camera=CameraSettings(height=128, width=256),
    )


def _fef2_conversion() -> Scenario:
    """Film of FeF2, 256 nm, that takes 2 Li for each Fe, and turns into grains of Fe in LiF.

    4.09 g/cm3 and 93.84 g/mol are 43 600 mol/m3 of FeF2. The block is 2 um by 50 nm.
    """
    wire = _wire_cell(2e-6 * 50e-9 * 256e-9, 256e-9, 2 * 43_600.0)
    return Scenario(
        name="fef2_conversion",
        cell=wire,
        scene=ConversionParameters(),
        camera=CameraSettings(height=128, width=256, pixel_size_m=1e-9, dose_rate_e_m2_s=2e20),
    )


# Whose numbers can be replaced.
PARTS = ("cell", "scene", "camera", "smu", "blanker", "heat", "faults")

_SCENARIOS = {
    "fef2_conversion": _fef2_conversion,
    "lco_lipon_li": _lco_lipon_li,
    "lco_nasicon_potential": _lco_nasicon_potential,
    "li_lipon_interface": _li_lipon_interface,
    "sno2_lvso_lco_profile": _sno2_lvso_lco_profile,
    "garnet_beam_damage": _garnet_beam_damage,
    "inactive_li_cryo": _inactive_li_cryo,
    "layered_to_spinel": _layered_to_spinel,
    "lfp_plate": _lfp_plate,
    "li_dendrite_liquid": _li_dendrite_liquid,
    "li_whisker_solid": _li_whisker_solid,
    "lfp_state_map": _lfp_state_map,
    "lco_solid_solution": _lco_solid_solution,
    "lco_thin_film": _lco_thin_film,
    "si_nanowire": _si_nanowire,
    "sno2_nanowire": _sno2_nanowire,
}


def names() -> tuple[str, ...]:
    """Return the names of all scenarios."""
    return tuple(_SCENARIOS)


def load(name: str, **overrides: float) -> Scenario:
    """Return a named scenario with some of its numbers replaced.

    Parameters
    ----------
    overrides
        Any field of the cell, the scene, the camera, the source-measure unit, the blanker or the
        heat of the holder, in SI units.

    Raises
    ------
    ValueError
        There is no such scenario or field, or a number that cannot be.
    """
    if name not in _SCENARIOS:
        near = difflib.get_close_matches(name, _SCENARIOS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(names())}"
        raise ValueError(f"no simulated scenario is called {name!r}; {hint}")
    scenario = _SCENARIOS[name]()
    for key, value in overrides.items():
        scenario = _override(scenario, key, value)
    return scenario


def _override(scenario: Scenario, key: str, value: float) -> Scenario:
    if not math.isfinite(value):
        raise ValueError(f"{key} of the simulated world must be finite, not {value}")
    for part_name in PARTS:
        part = getattr(scenario, part_name)
        known = {f.name: getattr(part, f.name) for f in fields(part)}
        if key in known:
            fitting = int(value) if isinstance(known[key], int) else float(value)
            return replace(scenario, **{part_name: replace(part, **{key: fitting})})
    raise ValueError(
        f"the simulated world has no {key!r}; it has "
        + ", ".join(f.name for p in PARTS for f in fields(getattr(scenario, p)))
    )
