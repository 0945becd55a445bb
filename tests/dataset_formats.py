"""A recording with known truth, written as each tracker writes it. Conventions are spelled out here once more, from the
formats' side, so that a reader's mistake cannot hide in shared code."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from being_rt.dataset.convert import convert
from being_rt.dataset.dataset import Dataset
from being_rt.dataset.readers import ReadOptions
from being_rt.flame.model import FlameModel
from being_rt.flame.params import FlameParams
from being_rt.flame.procedural import procedural_head, procedural_identity
from being_rt.flame.rotations import matrices
from being_rt.flame.skinning import bake_rig, skin

FRAMES = 5
SIZE = (160, 120)  # width, height
SHAPE = 100  # coefficients of the identity that are not zero, so that formats with fewer carry it too


@cache
def model() -> FlameModel:
    return procedural_head()


@dataclass
class Truth:
    """What really happened: FLAME's parameters, and OpenCV cameras [T, 4, 4] that take its mesh to the picture."""

    shape: np.ndarray
    fields: dict[str, np.ndarray]
    poses: np.ndarray
    intrinsics: np.ndarray
    size: tuple[int, int] = SIZE
    static_offset: np.ndarray | None = None
    vertices: np.ndarray = field(init=False)  # [T, V, 3] FLAME space

    def __post_init__(self) -> None:
        from dataclasses import replace

        head = model()
        if self.static_offset is not None:
            head = replace(head, template=(head.template + self.static_offset).astype(np.float32))
        self.vertices = skin(bake_rig(head, self.shape), FlameParams(**self.fields)).astype(np.float64)

    def pixels(self) -> np.ndarray:
        """Where every vertex is seen [T, V, 2]."""
        seen = np.einsum("tij,tvj->tvi", self.poses[:, :3, :3], self.vertices) + self.poses[:, None, :3, 3]
        return seen[..., :2] / seen[..., 2:] * np.diag(self.intrinsics)[:2] + self.intrinsics[:2, 2]


def truth(moving: bool, posed: bool, seed: int = 1, translated: bool = True) -> Truth:
    """A head before a camera: ``moving`` puts the motion into the camera, ``posed`` into FLAME's joints.

    ``translated``: FLAME's own translation too, which IMavatar does not have.
    """
    random = np.random.default_rng(seed)

    def normal(scale: float, *shape: int) -> np.ndarray:
        return random.normal(0, scale, shape)

    shape = np.zeros(300)
    shape[:SHAPE] = procedural_identity(seed)[:SHAPE]
    expression = np.zeros((FRAMES, 100))
    expression[:, :50] = normal(0.7, FRAMES, 50)
    fields = {
        "expression": expression,
        "rotation": normal(0.2 * posed, FRAMES, 3),
        "neck": normal(0.1 * posed, FRAMES, 3),
        "jaw": normal(0.1, FRAMES, 3),
        "eyes": normal(0.15, FRAMES, 6),
        "translation": normal(0.03 * (posed and translated), FRAMES, 3),
        "eyelids": np.zeros((FRAMES, 2)),
    }
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    turn = np.repeat(normal(0.05, 1, 3), FRAMES, 0) + moving * normal(0.25, FRAMES, 3)
    poses[:, :3, :3] = np.diag([1.0, -1.0, -1.0]) @ matrices(turn)
    poses[:, :3, 3] = [0.02, -0.01, 0.9] + moving * normal(0.03, FRAMES, 3)
    intrinsics = np.array([[300.0, 0, 83], [0, 305.0, 55], [0, 0, 1]])
    return Truth(shape, fields, poses, intrinsics)


def converted(source: Path, **options: Any) -> Dataset:
    """What reading a recording of the model gives, written beside it."""
    return convert(source, source.parent / "out", model(), ReadOptions(**options))[0]


def error_px(dataset: Dataset, expected: np.ndarray) -> float:
    """The largest distance between where a data set's mesh is seen and where it should be, in pixels."""
    worst = 0.0
    for index in range(dataset.count):
        step, camera = int(dataset.timestep[index]), dataset.cameras[dataset.camera_index[index]]
        vertices = skin(dataset.rig, dataset.params[step])[0].astype(np.float64)
        seen = vertices @ camera.world_to_camera[:3, :3].astype(np.float64).T + camera.world_to_camera[:3, 3]
        assert seen[:, 2].min() > 0
        k = camera.intrinsics.astype(np.float64)
        pixels = seen[:, :2] / seen[:, 2:] * np.diag(k)[:2] + k[:2, 2]
        worst = max(worst, float(np.linalg.norm(pixels - expected[index], axis=1).max()))
    return worst


def picture(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A frame that says which it is, by its colour."""
    return np.broadcast_to(np.array([20 * index, 100, 255 - 20 * index], np.uint8), (size[1], size[0], 3))


def mask(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.full((size[1], size[0]), 50 + index, np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)


def six(axis_angle: np.ndarray) -> np.ndarray:
    """PyTorch3D's matrix_to_rotation_6d: the first two rows, one after the other."""
    return matrices(axis_angle)[..., :2, :].reshape(*axis_angle.shape[:-1], 6)


def write_metrical(folder: Path, given: Truth, *, first_picture: int = 0, opencv: bool = True) -> Path:
    """``checkpoint/%05d.frame`` from 0, ``input/%05d.png``, as the tracker's save_checkpoint and checkpoint do."""
    import torch

    width, height = given.size
    flip = np.diag([-1.0, -1.0, 1.0])  # PyTorch3D: x to the left, y up, z forward; row vectors: X R + T
    for i, pose in enumerate(given.poses):
        rotation = (flip @ pose[:3, :3]).T
        half = min(width, height) / 2
        k = given.intrinsics
        fields = {name: value[i : i + 1] for name, value in given.fields.items()}
        frame: dict[str, Any] = {
            "flame": {
                "exp": fields["expression"],
                "shape": given.shape[None],
                "tex": np.zeros((1, 140)),
                "sh": np.zeros((1, 9, 3)),
                "eyes": np.concatenate([six(fields["eyes"][:, :3]), six(fields["eyes"][:, 3:])], 1),
                "eyelids": fields["eyelids"],
                "jaw": six(fields["jaw"]),
            },
            "camera": {
                "R": rotation[:2].reshape(1, 6),
                "t": (flip @ pose[:3, 3])[None],
                "fl": np.array([[k[0, 0] / half]]),
                "pp": np.array([[-(k[0, 2] - width / 2) / half, -(k[1, 2] - height / 2) / half]]),
            },
            "opencv": {"R": pose[None, :3, :3], "t": pose[None, :3, 3], "K": k[None]},
            "img_size": np.array([height, width]),
            "frame_id": f"{i:05d}",
            "global_step": i,
        }
        if not opencv:
            del frame["opencv"]
        as_single(frame)
        (folder / "checkpoint").mkdir(parents=True, exist_ok=True)
        torch.save(frame, folder / "checkpoint" / f"{i:05d}.frame")
        save(folder / "input" / f"{i + first_picture:05d}.png", picture(i, given.size))
    return folder


def as_single(table: dict[str, Any]) -> None:
    """float64 arrays to the tracker's float32, in place."""
    for name, value in table.items():
        if isinstance(value, dict):
            as_single(value)
        elif isinstance(value, np.ndarray) and value.dtype == np.float64:
            table[name] = value.astype(np.float32)


def write_insta(folder: Path, given: Truth, *, test: int = 2) -> Path:
    """``transforms*.json`` with the inverse of OpenCV's world to camera, ``flame/exp/*.txt``, RGBA pictures."""
    width, height = given.size
    k = given.intrinsics
    table = {
        **{"w": float(width), "h": float(height), "cx": k[0, 2], "cy": k[1, 2], "fl_x": k[0, 0], "fl_y": k[1, 1]},
        **{"camera_angle_x": 2 * np.arctan(width / (2 * k[0, 0])), "integer_depth_scale": 0.001},
    }
    frames = []
    for i, pose in enumerate(given.poses):
        name = f"{i:05d}"
        frames.append(
            {
                "transform_matrix": np.linalg.inv(pose).tolist(),
                "file_path": f"images/{name}.png",
                "mesh_path": f"meshes/{name}.obj",
                "exp_path": f"flame/exp/{name}.txt",
                "depth_path": f"depth/{name}.png",
                "seg_mask_path": f"seg_mask/{name}.png",
            }
        )
        (folder / "flame" / "exp").mkdir(parents=True, exist_ok=True)
        np.savetxt(folder / "flame" / "exp" / f"{name}.txt", given.fields["expression"][i], fmt="%.8f")
        alpha = mask(i, given.size)[:, :, None]
        save(folder / "images" / f"{name}.png", np.concatenate([picture(i, given.size), alpha], 2))
    parts = {"": frames, "_train": frames[:-test], "_test": frames[-test:], "_val": frames[-1:]}
    for part, members in parts.items():
        text = json.dumps({**table, "frames": members}, indent=4, sort_keys=True)
        (folder / f"transforms{part}.json").write_text(text, encoding="ascii")
    return folder


def write_insta_extras(folder: Path, given: Truth, names: tuple[str, ...]) -> None:
    """The parts of ``flame/`` that INSTA's exporter leaves out unless it is told: one number per line."""
    for i in range(len(given.poses)):
        rows = {
            "jaw": six(given.fields["jaw"][i]),
            "eyes": np.concatenate([six(given.fields["eyes"][i, :3]), six(given.fields["eyes"][i, 3:])]),
            "eyelids": given.fields["eyelids"][i],
            "shape": given.shape,
        }
        for name in names:
            (folder / "flame" / name).mkdir(parents=True, exist_ok=True)
            np.savetxt(folder / "flame" / name / f"{i:05d}.txt", rows[name], fmt="%.8f")


def write_vhap(folder: Path, given: Truth, others: tuple[np.ndarray, ...] = (), *, split: bool = False) -> Path:
    """``transforms.json`` with OpenGL cameras that stand, ``flame_param/*.npz``; ``others``: more OpenCV cameras.

    The principal point is turned over with the axes: VHAP's convert_camera_convention("opencv->opengl").
    """
    width, height = given.size
    k = given.intrinsics
    opengl = np.diag([1.0, -1.0, -1.0, 1.0])
    frames = []
    for i in range(len(given.poses)):
        motion = {name: given.fields[name][i : i + 1].astype(np.float32) for name in ("rotation", "translation")}
        motion |= {f"{name}_pose": given.fields[name][i : i + 1].astype(np.float32) for name in ("neck", "jaw", "eyes")}
        motion |= {"expr": given.fields["expression"][i : i + 1], "shape": given.shape}
        if given.static_offset is not None:  # 120 vertices of teeth come last
            motion["static_offset"] = np.concatenate([given.static_offset, np.ones((120, 3))])[None]
        (folder / "flame_param").mkdir(parents=True, exist_ok=True)
        np.savez(folder / "flame_param" / f"{i:05d}.npz", **motion)
        for camera, pose in enumerate((given.poses[i], *others)):
            name = f"{i:05d}_{camera:02d}.png"
            frames.append(
                {
                    **{"timestep_index": i, "timestep_index_original": 2 * i, "timestep_id": f"{2 * i:05d}"},
                    **{"camera_index": camera, "camera_id": f"cam{camera}"},
                    **{"cx": k[0, 2], "cy": height - k[1, 2], "fl_x": k[0, 0], "fl_y": k[1, 1]},
                    **{"h": height, "w": width},
                    "transform_matrix": (np.linalg.inv(pose) @ opengl).tolist(),
                    "file_path": f"images/{name}",
                    "fg_mask_path": f"fg_masks/{name}",
                    "flame_param_path": f"flame_param/{i:05d}.npz",
                }
            )
            save(folder / "images" / name, picture(i, given.size))
            save(folder / "fg_masks" / name, mask(i, given.size))
    parts = {"": frames}
    if split:
        last = len(given.poses) - 1
        parts |= {
            "_train": [f for f in frames if f["timestep_index"] < last and f["camera_index"] == 0],
            "_val": [f for f in frames if f["timestep_index"] < last and f["camera_index"] > 0],
            "_test": [f for f in frames if f["timestep_index"] == last],
        }
    for part, members in parts.items():
        table = {"frames": members, "h": height, "w": width, "camera_indices": [0], "timestep_indices": [0]}
        (folder / f"transforms{part}.json").write_text(json.dumps(table), encoding="ascii")
    return folder


def write_imavatar(folder: Path, given: Truth, *, pixels: bool = False) -> Path:
    """``flame_params.json``: geometry times 4, OpenGL axes, intrinsics in parts of the sides and fx negative.

    ``pixels``: the older files, with intrinsics in pixels of a picture of 512.
    """
    width, height = given.size
    k = given.intrinsics
    sides = np.array([width, height, width, height])
    parts = np.array([-k[0, 0], k[1, 1], k[0, 2], k[1, 2]]) / sides
    frames = []
    for i, pose in enumerate(given.poses):
        world = np.diag([1.0, -1.0, -1.0]) @ pose[:3]
        world[:, 3] *= 4
        joints = [given.fields[name][i] for name in ("rotation", "neck", "jaw", "eyes")]
        frames.append(
            {
                "file_path": f"./image/{i + 1}",
                "world_mat": world.tolist(),
                "expression": given.fields["expression"][i, :50].tolist(),
                "pose": np.concatenate(joints).tolist(),
                "bbox": [-0.5, -0.5, 0.5, 0.5],
                "flame_keypoints": [],
            }
        )
        save(folder / "image" / f"{i + 1}.png", picture(i, given.size))
        save(folder / "mask" / f"{i + 1}.png", mask(i, given.size))
    intrinsics = np.abs(parts) * 512 if pixels else parts
    table = {"frames": frames, "intrinsics": intrinsics.tolist(), "shape_params": given.shape[:100].tolist()}
    (folder / "flame_params.json").write_text(json.dumps(table), encoding="ascii")
    return folder


def write_flame_head_tracker(folder: Path, given: Truth, *, first: int = 0, photometric: bool = True) -> Path:
    """``[frame].npz`` as track_video saves them. The pictures were squeezed to 256 x 256 for the fit.

    The tracker's principal point is always the middle, and its two focal lengths there are the same.
    """
    width, height = given.size
    folder.mkdir(parents=True, exist_ok=True)
    for i, pose in enumerate(given.poses):
        camera = np.linalg.inv(pose) @ np.diag([1.0, -1.0, -1.0, 1.0])  # to world, of OpenGL's axes
        r = camera[:3, :3]
        angles = [np.arcsin(-r[2, 0]), np.arctan2(r[2, 1], r[2, 2]), np.arctan2(r[1, 0], r[0, 0])]
        k = given.intrinsics / np.array([[width / 256], [height / 256], [1]])
        assert np.allclose(k, [[k[0, 0], 0, 128], [0, k[0, 0], 128], [0, 0, 1]])
        fields = {name: value[i : i + 1] for name, value in given.fields.items()}
        content: dict[str, Any] = {
            "shape": given.shape[None],
            "exp": fields["expression"],
            "head_pose": np.zeros((1, 3)),
            "jaw_pose": fields["jaw"],
            "eye_pose": fields["eyes"],
            "tex": np.zeros((1, 50)),
            "light": np.zeros((1, 9, 3)),
            "cam": np.concatenate([angles, camera[:3, 3]])[None],
            "fov": np.degrees(2 * np.arctan(128 / k[0, 0])).reshape(1),
            "K": k[None],
        }
        if photometric:
            content["neck_pose"] = fields["neck"]
        as_single(content)
        parsing = np.zeros((512, 512), np.uint8)
        parsing[256:] = 1 + i
        content |= {"img": picture(i, given.size)[None], "img_aligned": np.zeros((1, 512, 512, 3), np.uint8)}
        content |= {"img_rendered": np.zeros((1, 256, 256, 3), np.uint8), "parsing": parsing[None]}
        np.savez_compressed(folder / f"{i + first}.npz", **content)
    return folder


def write_gagavatar(folder: Path, given: Truth, *, first: int = 8, smoothed: bool = True) -> Path:
    """``optim.pkl``, ``smoothed.pkl``, ``img_lmdb`` as track_video leaves them; frames in the order of their names."""
    import io
    import pickle

    assert given.size == (512, 512)
    assert np.allclose(given.intrinsics, [[12 * 256, 0, 256], [0, 12 * 256, 256], [0, 0, 1]])
    folder.mkdir(parents=True, exist_ok=True)
    flip = np.diag([-1.0, -1.0, 1.0])  # PyTorch3D: x to the left, y up, z forward; row vectors: X R + T
    frames, images = {}, {}
    for i in sorted(range(len(given.poses)), key=lambda i: f"obama_{i + first}"):
        rotation, translation = (flip @ given.poses[i, :3, :3]).T, 5 * flip @ given.poses[i, :3, 3]
        frames[f"obama_{i + first}"] = {
            "bbox": np.array([0.2, 0.2, 0.8, 0.8], np.float32),
            "shapecode": given.shape.astype(np.float32),
            "expcode": given.fields["expression"][i].astype(np.float32),
            "posecode": np.concatenate([np.zeros(3), given.fields["jaw"][i]]).astype(np.float32),
            "eyecode": given.fields["eyes"][i].astype(np.float32),
            "transform_matrix": np.column_stack([rotation, translation]).astype(np.float32),
        }
        stream = io.BytesIO()
        Image.fromarray(picture(i, given.size)).save(stream, "JPEG", quality=95, subsampling=0)
        images[f"obama_{i + first}"] = stream.getvalue()
    with open(folder / "optim.pkl", "wb") as file:
        pickle.dump(frames, file)
    if smoothed:  # as doubles, as PyTorch's rotation_6d_to_matrix and NumPy make them
        with open(folder / "smoothed.pkl", "wb") as file:
            pickle.dump(
                {key: {n: v.astype(np.float64) for n, v in frame.items()} for key, frame in frames.items()}, file
            )
    write_lmdb(folder / "img_lmdb" / "data.mdb", images)
    return folder


def write_lmdb(path: Path, entries: dict[str, bytes], size: int = 4096) -> Path:
    """An LMDB environment's ``data.mdb`` after one transaction: values over half a page in pages of their own, two
    entries per leaf, one branch above the leaves."""
    pages: list[bytes] = [b"", b""]

    def add(flags: int, nodes: list[bytes]) -> int:
        number, offsets, end = len(pages), b"", size
        body = bytearray(size)
        for node in nodes:
            end -= len(node) + len(node) % 2
            body[end : end + len(node)] = node
            offsets += struct.pack("<H", end)
        body[:16] = struct.pack("<QHHHH", number, 0, flags, 16 + len(offsets), end)
        body[16 : 16 + len(offsets)] = offsets
        pages.append(bytes(body))
        return number

    def leaf_node(key: str, value: bytes) -> bytes:
        kind, data = 0, value
        if len(key) + len(value) + 8 > (size - 16) // 2:
            count = -(-(len(value) + 16) // size)
            kind, data = 1, struct.pack("<Q", len(pages))
            block = struct.pack("<QHHI", len(pages), 0, 4, count) + value
            pages.extend(block.ljust(count * size, b"\0")[i * size : (i + 1) * size] for i in range(count))
        head = struct.pack("<HHHH", len(value) & 0xFFFF, len(value) >> 16, kind, len(key))
        return head + key.encode() + data

    keys, branches = sorted(entries), []
    for start in range(0, len(keys), 2):
        some = keys[start : start + 2]
        number = add(2, [leaf_node(key, entries[key]) for key in some])
        name = some[0].encode() if branches else b""
        branches.append(struct.pack("<HHHH", number & 0xFFFF, number >> 16, 0, len(name)) + name)
    root = add(1, branches)
    for number in range(2):
        free = struct.pack("<IHHQQQQQ", size, 8, 0, 0, 0, 0, 0, 2**64 - 1)
        main = struct.pack("<IHHQQQQQ", 0, 0, 2, 1, len(branches), 0, len(keys), root)
        if number == 0:  # the state before
            main = struct.pack("<IHHQQQQQ", 0, 0, 0, 0, 0, 0, 0, 2**64 - 1)
        meta = struct.pack("<QHHHH", number, 0, 8, 0, 0) + struct.pack("<IIQQ", 0xBEEFC0DE, 1, 0, 1 << 40)
        pages[number] = (meta + free + main + struct.pack("<QQ", len(pages) - 1, number)).ljust(size, b"\0")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(pages))
    return path
