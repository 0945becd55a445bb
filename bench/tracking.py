"""``python -m bench.tracking``: how far the fit of a clip is from a performance that is known.

A synthetic person talks, blinks and turns the head before a known camera. Networks are replaced by what is known of
them: noise from frame to frame as measured on real clips, a bias of every landmark that its neighbours share, and an
outline that slides over the skin (:mod:`bench.tracking_scenes`). Everything is in the table that a track is good for:
what the picture shows, what drives an avatar, and what stays unknown with one camera.

    python -m bench.tracking --frames 750 --json tracking.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from being_rt.bench.environment import environment
from being_rt.dataset.regions import project
from being_rt.dataset.synth_motion import MotionLimits
from being_rt.errors import BeingError
from being_rt.files import atomic_write
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.rotations import matrices, matrix_axis_angles, nearest_rotations
from being_rt.flame.skinning import skin
from being_rt.track.fit import Fit, fit
from being_rt.track.fit_config import FitConfig
from being_rt.track.prepare import REAL_FACES
from being_rt.track.quality import judge
from bench.tracking_scenes import Scene, scene

Float64 = NDArray[np.float64]

# What networks do on real clips: px at a distance between the eyes of 107 px, and metres on the face.
EYES_APART, NOISE, BIAS, SMOOTH = 107.0, 0.33, 0.001, 0.0025
TURNS = MotionLimits(yaw=25.0, pitch=12.0, roll=6.0)
STILL = MotionLimits(yaw=0.0, pitch=0.0, roll=0.0, sway=0.0)
STILL_FRAMES = 125
STEP = 5  # every so many frames, meshes are compared


@dataclass(frozen=True)
class Result:
    """Errors of a fit; root mean squares over frames."""

    person: int
    frames: int
    outline: float  # per cent of the distance between the eyes: the jaw's line in the picture
    face_pixels: float  # px, of the face's mesh in the picture
    rotation: float  # degrees, what changes from frame to frame
    rotation_offset: float  # degrees, what does not
    place_pixels: float  # px, of the head's middle in the picture
    place: float  # millimetres sideways and up, at the distance that was found
    distance: float  # per cent
    jaw: float  # degrees, what changes
    jaw_offset: float
    expression: float  # millimetres, of the face's motion in the head
    identity: float  # millimetres, of the resting face
    focal: float  # per cent
    eyelids: float  # of a full closure
    closure: float  # what the track's eyelids reach where the person's are shut
    blinks: tuple[int, int]  # found, seen
    gaze: float  # degrees, what changes
    shake: float  # px from frame to frame of the bust of a person who keeps still
    milliseconds: float  # of the fit, per frame
    processor: float  # milliseconds of all cores together, which other programs lengthen less


def main(arguments: Sequence[str] | None = None) -> int:
    """Make, fit, compare, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", nargs="+", type=int, default=[3, 7, 12], help="seeds of procedural people")
    parser.add_argument("--frames", type=int, default=750, help="at 25 per second (default: 750)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write results there")
    given = parser.parse_args(arguments)
    try:
        results = [measured(person, given.frames) for person in given.people]
        print(table(results))
        if given.json:
            record = {"environment": environment(), "results": [asdict(result) for result in results]}
            with atomic_write(given.json) as temporary:
                temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    except BeingError as error:
        print(f"tracking: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def performance(person: int, frames: int, limits: MotionLimits = TURNS) -> Scene:
    """A clip as the networks would see it."""
    return scene(
        frames,
        person=person,
        seed=person,
        eyes_apart=EYES_APART,
        noise=NOISE,
        bias=BIAS,
        smooth=SMOOTH,
        sliding=True,
        limits=limits,
    )


def measured(person: int, frames: int, config: FitConfig = REAL_FACES) -> Result:
    """Fit two clips of a person: one that turns the head, and one that keeps it still."""
    known = performance(person, frames)
    start, used = time.perf_counter(), time.process_time()
    found = fit(known.observations, known.model, known.embedding, config)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    still = performance(person, STILL_FRAMES, STILL)
    shake = bust_shake(fit(still.observations, still.model, still.embedding, config), still)
    return compared(known, found, shake, 1e3 * seconds / frames, 1e3 * used / frames)


def compared(known: Scene, found: Fit, shake: float, milliseconds: float, processor: float) -> Result:
    """All errors of a fit."""
    rig = found.rig(known.model)
    every = slice(None, None, STEP)
    face = known.model.regions["face"]
    off = project(skin(rig, found.params[every])[:, face], found.camera)[0]
    off -= project(known.vertices[every][:, face], known.camera)[0]
    turned = matrix_axis_angles(matrices(found.params.rotation) @ np.swapaxes(matrices(known.params.rotation), 1, 2))
    place, truth = head_middles(rig, found.params), head_middles(known.rig, known.params)
    shift = project(place, found.camera)[0] - project(truth, known.camera)[0]
    jaw = np.degrees(found.params.jaw - known.params.jaw)[:, 0]
    gaze = np.degrees(found.params.eyes - known.params.eyes)[:, [0, 1, 3, 4]]
    shut = known.params.eyelids > 0.95
    quality = judge(known.observations, found, known.model, known.embedding)
    focal = found.camera.intrinsics[0, 0] / known.camera.intrinsics[0, 0]
    moved = motion_in_head(rig, found.params[every], face) - motion_in_head(known.rig, known.params[every], face)
    return Result(
        person=known.person,
        frames=len(known.params),
        outline=quality.outline,
        face_pixels=_rms(off),
        rotation=float(np.degrees(_rms(turned - turned.mean(0)))),
        rotation_offset=float(np.degrees(np.linalg.norm(turned.mean(0)))),
        place_pixels=_rms(shift - shift.mean(0)),
        place=1e3 * _rms(shift) * float(-place[:, 2].mean() / found.camera.intrinsics[0, 0]),
        distance=100 * _rms(place[:, 2:] / truth[:, 2:] - 1),
        jaw=float(jaw.std()),
        jaw_offset=float(jaw.mean()),
        expression=1e3 * _rms(moved),
        identity=1e3 * resting_difference(rig, known.rig, face),
        focal=100 * float(focal - 1),
        eyelids=_rms((found.params.eyelids - known.params.eyelids)[..., None]),
        closure=float(found.params.eyelids[shut].mean()) if shut.any() else float("nan"),
        blinks=(quality.blinks_found, quality.blinks),
        gaze=float(np.sqrt((gaze.var(0)).mean())),
        shake=shake,
        milliseconds=milliseconds,
        processor=processor,
    )


def bust_shake(found: Fit, still: Scene) -> float:
    """Px, root mean square, by which the bust moves from frame to frame."""
    rig = found.rig(still.model)
    bust = still.model.regions["neck"]
    pixels = project(skin(rig, found.params)[:, bust], found.camera)[0]
    return _rms(np.diff(pixels, axis=0))


def head_middles(rig: Rig, params: FlameParams) -> Float64:
    """Where the middle between the eyeballs is [T, 3], metres."""
    joints = rig.joint_rest + np.einsum("jak,tk->tja", rig.joint_expression, params.expression)
    eyes = joints[:, 3:5].mean(1) - joints[:, 0]
    return np.asarray(np.einsum("tab,tb->ta", matrices(params.rotation), eyes) + joints[:, 0] + params.translation)


def motion_in_head(rig: Rig, params: FlameParams, vertices: NDArray[np.int32]) -> Float64:
    """By how much [T, n, 3] vertices are away from their mean place once the head's motion is taken out."""
    still = params.replace(rotation=0 * params.rotation, translation=0 * params.translation)
    moved = skin(rig, still)[:, vertices].astype(np.float64)
    middle = moved.mean(0)
    return np.stack([aligned(frame, middle) for frame in moved]) - middle


def resting_difference(a: Rig, b: Rig, vertices: NDArray[np.int32]) -> float:
    """Root mean square distance of two resting faces, one laid on the other; no one camera tells their size."""
    first, second = (rig.template[vertices].astype(np.float64) for rig in (a, b))
    return _rms(aligned(first, second, scaled=True) - second)


def aligned(points: Float64, target: Float64, scaled: bool = False) -> Float64:
    """Points [n, 3] moved rigidly onto others (Kabsch, Acta Crystallographica A 32, 1976)."""
    middle, centre = points.mean(0), target.mean(0)
    turn = nearest_rotations((target - centre).T @ (points - middle))
    moved = (points - middle) @ turn.T
    scale = np.sum(moved * (target - centre)) / np.sum(moved**2) if scaled else 1.0
    return np.asarray(scale * moved + centre)


def table(results: Sequence[Result]) -> str:
    """Rows of figures, a column per person."""
    names = [name for name in asdict(results[0]) if name != "person"]
    lines = [["", *(f"person {result.person}" for result in results)]]
    for name in names:
        lines.append([name.replace("_", " "), *(_cell(getattr(result, name)) for result in results)])
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return f"{value[0]} of {value[1]}"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _rms(differences: Float64) -> float:
    """Root mean square length of vectors [..., n]."""
    return float(np.sqrt(np.mean(np.sum(np.asarray(differences, np.float64) ** 2, -1))))


if __name__ == "__main__":
    sys.exit(main())
