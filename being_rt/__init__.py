"""being_rt: speech in, full-frame video of a person out, in real time.

The public names load on first use, so that ``import being_rt`` stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Avatar": "being_rt.avatar.avatar",
    "Camera": "being_rt.avatar.avatar",
    "load_avatar": "being_rt.avatar.file",
    "save_avatar": "being_rt.avatar.file",
    "demo_avatar": "being_rt.avatar.demo",
    "FlameParams": "being_rt.flame.params",
    "FlameModel": "being_rt.flame.model",
    "load_flame_model": "being_rt.flame.loader",
    "Renderer": "being_rt.renderer",
    "BatchRenderer": "being_rt.renderer",
    "DeviceFrame": "being_rt.cuda",
    "MotionDriver": "being_rt.motion.driver",
    "VisemeDriver": "being_rt.motion.viseme_driver",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from being_rt.avatar.avatar import Avatar as Avatar
    from being_rt.avatar.avatar import Camera as Camera
    from being_rt.avatar.demo import demo_avatar as demo_avatar
    from being_rt.avatar.file import load_avatar as load_avatar
    from being_rt.avatar.file import save_avatar as save_avatar
    from being_rt.cuda import DeviceFrame as DeviceFrame
    from being_rt.flame.loader import load_flame_model as load_flame_model
    from being_rt.flame.model import FlameModel as FlameModel
    from being_rt.flame.params import FlameParams as FlameParams
    from being_rt.motion.driver import MotionDriver as MotionDriver
    from being_rt.motion.viseme_driver import VisemeDriver as VisemeDriver
    from being_rt.renderer import BatchRenderer as BatchRenderer
    from being_rt.renderer import Renderer as Renderer


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'being_rt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
