"""From one photograph to an avatar as a whole job: what ``being clone --image`` does, callable from Python.

    from being_rt.portrait_jobs import ClonePortrait

    made = ClonePortrait("portrait.jpg", name="me").run()
    print(made.avatar, made.sample, *made.warnings)

It needs the extra ``track``, no GPU and no PyTorch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from being_rt.clone_jobs import check_extras
from being_rt.errors import AvatarFileError
from being_rt.files import check_target
from being_rt.jobs import Demo, FilePath, chosen_device

Progress = Callable[[str, float], None]  # what is being done, and the share of it that is


@dataclass(frozen=True)
class ClonedPortrait:
    """What :class:`ClonePortrait` wrote."""

    avatar: Path
    motion: Path  # FlameParams, T = 1: what the face does in the photograph, from the avatar's rest
    sample: Path | None  # a video of the avatar talking
    gaussians: int
    likeness: float  # dB: PSNR of the avatar in the photograph's pose against the photograph
    seconds: float  # without the sample
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ClonePortrait:
    """One photograph of a person in, an avatar of that person out, and a video in which it talks."""

    image: FilePath = field(kw_only=False)
    """Head and shoulders from the front, sharp, in even light: JPEG, PNG or what else Pillow reads."""
    name: str = ""
    """The person's, and the first part of all files' names; the picture's, if not given."""
    out: FilePath = ""
    """The avatar to write; NAME.being, if not given. All else lies beside it."""
    licence: str = ""
    """Under which terms the picture is used; goes into the avatar."""
    consent: str = ""
    """Who agreed to what; likewise."""
    device: str = "auto"
    """What draws the sample: auto, cpu, cuda or cuda:N."""
    threads: int = 2
    """For networks and filters."""
    sample: bool = True
    """Write NAME.talk.mp4, in which the avatar says a line."""

    def run(self, progress: Progress | None = None) -> ClonedPortrait:
        """Do the job.

        Raises ``TrackError``, ``AvatarFileError``, ``InvalidParameterError``, ``DeviceError``,
        ``MissingDependencyError``.
        """
        start = time.perf_counter()
        out = Path(self.out or f"{self._name}.being")
        check_target(out, AvatarFileError)
        chosen_device(self.device)
        check_extras()
        from being_rt.avatar.file import save_avatar
        from being_rt.flame.procedural import procedural_head
        from being_rt.portrait.build import avatar_of
        from being_rt.portrait.photograph import read_photograph
        from being_rt.portrait.subject import subject_of
        from being_rt.renderer import Renderer

        picture = read_photograph(self.image)
        subject = subject_of(picture, procedural_head(), progress, self.threads)
        avatar = avatar_of(subject, self._name, licence=self.licence, consent=self.consent, progress=progress)
        drawn = Renderer(avatar, subject.camera.size).render(subject.params)
        error = float(np.mean((drawn.astype(np.float64) - picture) ** 2))
        save_avatar(avatar, out, preview=drawn)
        motion = out.with_suffix(".photo.npz")
        subject.params.save(motion)
        seconds = time.perf_counter() - start
        sample = None
        if self.sample:
            sample = out.with_suffix(".talk.mp4")
            told = progress or (lambda stage, share: None)
            Demo(avatar=str(out), out=sample, device=self.device).run(
                lambda done, count: told("talking", done / max(count, 1))
            )
        return ClonedPortrait(
            avatar=out,
            motion=motion,
            sample=sample,
            gaussians=avatar.head.gaussians.count + avatar.torso.gaussians.count,
            likeness=float(10 * np.log10(255**2 / max(error, 1e-9))),
            seconds=seconds,
            warnings=subject.warnings,
        )

    @property
    def _name(self) -> str:
        return self.name or Path(self.out or self.image).stem
