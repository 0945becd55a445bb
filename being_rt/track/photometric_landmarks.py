"""What landmarks say of a motion, in the form that pictures are compared in: differences, and how they change."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from being_rt.avatar.avatar import Camera
from being_rt.flame.rig import Rig
from being_rt.ops.skinning import RigTensors, skin
from being_rt.track.fit_config import FitConfig
from being_rt.track.fit_landmarks import chosen_landmarks
from being_rt.track.fit_residuals import observed_landmarks
from being_rt.track.photometric_gate import FACING, Landmarks, facing, followed
from being_rt.track.photometric_views import Look, unpacked
from being_rt.train.tracks import COLUMNS

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


class LandmarkLooker:
    """Compares landmarks of a motion's mesh with those seen; inner ones that face the camera, lids' and lips' openings.

    Args:
        landmarks: of all timesteps.
        rig: the person's.
        camera: of the full frames.
        given: [T, 120] a motion that is about right; which landmarks are in view follows from it.
        columns: [P] of a motion's row, those that are varied.
        steps: [P] by which they are.
        share: of the landmarks that count: neighbours err together.
        openings: the same of lids' and lips' openings.
        device: where it is computed.
    """

    def __init__(
        self,
        landmarks: Landmarks,
        rig: Rig,
        camera: Camera,
        given: Float64,
        columns: Int64,
        steps: Float64,
        share: float,
        openings: float,
        device: str,
    ) -> None:
        embedding, config = landmarks.embedding, FitConfig()
        ids = chosen_landmarks(
            embedding.points(rig.template.astype(np.float64), rig.faces), embedding.found, config.skin
        )
        seen = observed_landmarks(landmarks.pixels, landmarks.found, ids, embedding.spread, config)
        self.columns, self.steps, self.outlier = columns, steps, config.outlier * seen.unit
        in_view = facing(landmarks, rig, unpacked(given, 25.0), camera)[:, ids] > FACING
        weight = seen.weight * in_view * ~seen.contour
        pairs = seen.pair_weight * in_view[:, seen.pairs].all(2)
        self._weight = np.concatenate([share * weight, openings * pairs], 1).astype(np.float32)  # [T, L + G]
        self.device = torch.device(device)
        self._pixels = seen.pixels.astype(np.float32)
        self._pairs = torch.tensor(seen.pairs, dtype=torch.int64, device=self.device)
        self._rig = RigTensors.of(rig, self.device, torch.float32)
        self._corners = torch.tensor(rig.faces[embedding.face[ids]], dtype=torch.int64, device=self.device)
        self._mix = torch.tensor(embedding.barycentric[ids], dtype=torch.float32, device=self.device)
        self._bias = torch.tensor(landmarks.bias[ids], dtype=torch.float32, device=self.device)
        self._follows = torch.tensor(followed(landmarks, rig)[ids], dtype=torch.float32, device=self.device)
        pose = camera.world_to_camera.astype(np.float32)
        self._turn = torch.tensor(pose[:3, :3], device=self.device)
        self._shift = torch.tensor(pose[:3, 3], device=self.device)
        self._intrinsics = torch.tensor(camera.intrinsics, dtype=torch.float32, device=self.device)

    @torch.no_grad()
    def look(self, times: Int64, motion: Float64) -> Look:
        """Differences [n, 2 (L + G)] in pixels at ``motion`` [n, 120], their changes, and inverse variances."""
        count, varied = len(times), len(self.columns)
        batch = np.repeat(motion[:, None], 1 + varied, 1)
        batch[:, np.arange(1, 1 + varied), self.columns] += self.steps
        pixels = self._project(batch.reshape(-1, motion.shape[1])).unflatten(0, (count, 1 + varied))
        difference = pixels - torch.from_numpy(self._pixels[times]).to(self.device)[:, None]
        upper, lower = self._pairs.unbind(1)
        difference = torch.cat([difference, difference[:, :, upper] - difference[:, :, lower]], 2)
        weight = torch.from_numpy(self._weight[times]).to(self.device)
        squares = difference[:, 0].square().sum(2)
        weight = weight * (1 + squares / self.outlier**2) ** -2
        steps = torch.tensor(self.steps, dtype=torch.float32, device=self.device)
        change = (difference[:, 1:] - difference[:, :1]).flatten(2) / steps[:, None]
        return Look(difference[:, 0].flatten(1), change, weight.repeat_interleave(2, 1))

    def _project(self, motion: Float64) -> Tensor:
        """Landmarks [n, L, 2] px of a motion [n, 120]."""

        def field(*names: str) -> Tensor:
            values = np.concatenate([motion[:, COLUMNS[name]] for name in names], 1)
            return torch.tensor(values, dtype=torch.float32, device=self.device)

        joints = field("rotation", "neck", "jaw", "eyes").unflatten(1, (5, 3))
        skinned = skin(self._rig, field("expression"), joints, field("eyelids"), field("translation"))
        points = (skinned.vertices[:, self._corners] * self._mix[..., None]).sum(2)
        turned = torch.einsum("lj,bjrc->blrc", self._follows, skinned.transforms[..., :3])
        points = points + (turned @ self._bias[..., None])[..., 0]
        seen = points @ self._turn.T + self._shift
        plane = seen[..., :2] / seen[..., 2:].clamp(min=1e-3)
        return plane @ self._intrinsics[:2, :2].T + self._intrinsics[:2, 2]
