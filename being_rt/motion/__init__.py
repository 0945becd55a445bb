"""Motion: what makes a face speak and live. Drivers turn sound into FLAME parameters and know nothing of pixels."""

from being_rt.motion.driver import MotionDriver, MotionFrame, drive
from being_rt.motion.viseme_driver import VisemeDriver

__all__ = ["MotionDriver", "MotionFrame", "VisemeDriver", "drive"]
