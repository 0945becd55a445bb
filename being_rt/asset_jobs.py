"""What is needed beyond the package: which files, from where, under which licence; what ``being assets`` does.

from being_rt.asset_jobs import Assets

for network in Assets().run().networks:
    print(network.name, network.state)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from being_rt.flame.loader import load_flame_model
from being_rt.jobs import FilePath
from being_rt.track.assets import AssetStatus, fetch, status

FLAME_HELP = (
    "FLAME, a head model measured from people, is optional: without it the head that comes with the package is fitted. "
    "It cannot be fetched, for its site wants an account: register at https://flame.is.tue.mpg.de, download FLAME 2023 "
    "Open, and take flame2023_Open.pkl out of it (CC-BY-4.0: any use, with attribution). "
    "Check it with: being assets --flame flame2023_Open.pkl"
)
FLAME_LICENCES = {
    "flame-2023-open": "CC-BY-4.0: any use, with attribution",
    "flame-2023": "research only, no commercial use; FLAME 2023 Open is free of that",
    "flame-2020": "research only, no commercial use; FLAME 2023 Open is free of that",
    "procedural": "Apache-2.0",
    "unknown": "unknown: it is none of the published files",
}


@dataclass(frozen=True)
class FlameStatus:
    """What a FLAME file is."""

    path: Path
    edition: str
    vertices: int
    licence: str


@dataclass(frozen=True)
class Needed:
    """What :class:`Assets` found."""

    networks: tuple[AssetStatus, ...]
    flame: FlameStatus | None  # None: no file was given

    @property
    def complete(self) -> bool:
        """Are all networks there?"""
        return all(network.state == "there" for network in self.networks)


@dataclass(frozen=True, kw_only=True)
class Assets:
    """The files that tracking needs beyond the package: lists them, and fetches those that are missing."""

    wheel: FilePath = ""
    """The wheel of MediaPipe that holds the networks, downloaded elsewhere: for machines without a network."""
    flame: FilePath = ""
    """A FLAME model file to check."""
    fetch: bool = True
    """Fetch what is missing."""

    def run(self, progress: Callable[[str], None] | None = None) -> Needed:
        """Do the job; ``progress`` is told what is being done, a line at a time.

        Raises ``TrackError`` where a network cannot be fetched, ``ModelFileError`` for a file that is no FLAME model.
        """
        checked = check_flame(self.flame) if self.flame else None
        networks = fetch(self.wheel or None, progress) if self.fetch or self.wheel else status()
        return Needed(tuple(networks), checked)


def check_flame(path: FilePath) -> FlameStatus:
    """Read a FLAME file and say which one it is. Nothing in it is executed. Raises ``ModelFileError``."""
    model = load_flame_model(path)
    return FlameStatus(Path(path), model.edition, len(model.template), FLAME_LICENCES[model.edition])
