"""What makes one demo person look like themselves, as plain data. Everything else in this package follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.demo.lighting import linear
from being_rt.errors import InvalidParameterError

Colour = tuple[float, float, float]  # sRGB, 0..255

HAIR_STYLES = ("short", "crop", "bob", "long")
GARMENTS = ("crew", "shirt", "vneck", "turtleneck", "blazer")

# Skin albedo by depth of tone, linear interpolation in linear light; read off measured skin charts (Jensen 2001,
# Weyrich et al. 2006) and pulled towards what a portrait lens shows.
_SKIN_TONES: tuple[tuple[float, Colour], ...] = (
    (0.00, (232, 188, 168)),
    (0.20, (222, 170, 144)),
    (0.40, (202, 146, 114)),
    (0.60, (168, 114, 82)),
    (0.80, (122, 78, 54)),
    (1.00, (82, 51, 37)),
)


@dataclass(frozen=True)
class PersonTraits:
    """One demo person. Amounts are 0..1 unless said otherwise; colours are sRGB 0..255; lengths metres.

    ``head`` holds amounts for the procedural head's identity traits by name, in standard deviations; ``resting`` is the
    expression of the face at rest, by ARKit's names (both sides where the side is left out).
    """

    name: str
    title: str = ""
    seed: int = 0
    age: float = 30.0  # years: wrinkles, sag, spots
    femininity: float = 0.5  # 0 masculine .. 1 feminine: brows, lashes, lips, jaw shading
    # skin
    skin_tone: float = 0.25  # 0 palest .. 1 deepest
    undertone: float = 0.0  # -1 rosy .. +1 olive
    redness: float = 0.5
    freckles: float = 0.0
    oiliness: float = 0.4
    stubble: float = 0.0  # shadow of a shaved beard
    beard: float = 0.0  # cover of grown hair: 0 none .. 1 full
    beard_length: float = 0.006
    # features
    eye_colour: Colour = (96, 72, 48)
    lip_colour: Colour = (186, 104, 98)
    lip_gloss: float = 0.4
    makeup: float = 0.0  # lid line and lashes
    brow_colour: Colour | None = None  # None: a little darker than the hair
    brow_thickness: float = 0.5
    brow_density: float = 0.6
    brow_arch: float = 0.5
    # hair
    hair_colour: Colour = (74, 50, 36)
    hair_style: str = "short"
    hair_length: float = 0.05
    hair_wave: float = 0.2
    hair_grey: float = 0.0
    # clothes and room
    garment: str = "crew"
    garment_colour: Colour = (58, 84, 112)
    undershirt_colour: Colour = (226, 224, 220)  # beneath an open collar, blazer or V neck
    background: tuple[Colour, Colour] = ((126, 134, 142), (62, 68, 78))  # lit centre, dark edge
    head: dict[str, float] = field(default_factory=dict)
    resting: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.hair_style not in HAIR_STYLES:
            raise InvalidParameterError(
                f"hair_style {self.hair_style!r} is unknown; use one of {', '.join(HAIR_STYLES)}"
            )
        if self.garment not in GARMENTS:
            raise InvalidParameterError(f"garment {self.garment!r} is unknown; use one of {', '.join(GARMENTS)}")

    @property
    def skin_albedo(self) -> NDArray[np.float64]:
        """Mean linear RGB of the face's skin, [3]."""
        depth, colours = zip(*_SKIN_TONES, strict=True)
        table = np.stack([linear(colour) for colour in colours])
        tone = np.array([np.interp(self.skin_tone, depth, table[:, channel]) for channel in range(3)])
        return tone * (1.0 + self.undertone * np.array([-0.05, 0.03, -0.07]))

    @property
    def hair_albedo(self) -> NDArray[np.float64]:
        """Linear RGB of the hair before grey strands are mixed in, [3]."""
        return linear(self.hair_colour)

    @property
    def brow_albedo(self) -> NDArray[np.float64]:
        """Linear RGB of the brows, [3]."""
        return linear(self.brow_colour) if self.brow_colour is not None else self.hair_albedo * 0.6


PRESETS: dict[str, PersonTraits] = {
    person.name: person
    for person in (
        PersonTraits(
            name="ada",
            title="a woman of 29, auburn bob, green eyes, a few freckles",
            seed=11,
            age=29,
            femininity=1.0,
            skin_tone=0.16,
            undertone=-0.1,
            redness=0.30,
            freckles=0.25,
            eye_colour=(92, 122, 92),
            lip_colour=(190, 102, 97),
            lip_gloss=0.5,
            makeup=0.5,
            brow_thickness=0.36,
            brow_arch=0.7,
            hair_colour=(98, 54, 32),
            hair_style="bob",
            hair_length=0.24,
            hair_wave=0.35,
            garment="crew",
            garment_colour=(38, 74, 82),
            background=((142, 138, 132), (64, 62, 64)),
            resting={"mouthSmile": 0.68},
            head={
                "eye_size": 1.6,
                "eye_tilt": 0.8,
                "eye_hooding": -1.0,
                "brow_height": -1.0,
                "lip_fullness": -1.8,
                "mouth_width": 0.3,
                "mouth_height": 0.6,
                "nose_length": -0.6,
                "nose_tip_up": -0.2,
                "nose_width": -0.2,
                "cheekbones": 0.3,
                "jaw_width": -0.3,
                "chin_length": -0.9,
                "neck_length": -1.5,
                "neck_width": -0.6,
            },
        ),
        PersonTraits(
            name="marcus",
            title="a man of 36, dark skin, cropped black hair, short beard",
            seed=23,
            age=36,
            femininity=0.0,
            skin_tone=0.82,
            undertone=0.2,
            redness=0.4,
            oiliness=0.65,
            stubble=0.6,
            beard=0.7,
            beard_length=0.004,
            eye_colour=(62, 40, 26),
            lip_colour=(108, 60, 54),
            lip_gloss=0.35,
            brow_thickness=0.75,
            brow_arch=0.35,
            hair_colour=(24, 20, 18),
            hair_style="crop",
            hair_length=0.012,
            hair_wave=0.9,
            garment="shirt",
            garment_colour=(196, 204, 214),
            background=((112, 124, 134), (46, 54, 64)),
            resting={"mouthSmile": 0.34, "cheekSquint": 0.06},
            head={
                "nose_width": 0.8,
                "lip_fullness": 1.3,
                "nose_bridge": -0.6,
                "jaw_width": 0.3,
                "eye_size": 0.4,
                "neck_length": -0.8,
            },
        ),
        PersonTraits(
            name="mei",
            title="a woman of 42, East Asian, long black hair, blazer",
            seed=37,
            age=42,
            femininity=0.9,
            skin_tone=0.26,
            undertone=0.45,
            redness=0.35,
            eye_colour=(58, 38, 26),
            lip_colour=(176, 84, 84),
            lip_gloss=0.5,
            makeup=0.45,
            brow_thickness=0.45,
            brow_arch=0.45,
            hair_colour=(30, 24, 22),
            hair_style="long",
            hair_length=0.36,
            hair_wave=0.08,
            garment="blazer",
            garment_colour=(44, 46, 60),
            undershirt_colour=(230, 226, 218),
            background=((148, 140, 128), (74, 66, 60)),
            resting={"mouthSmile": 0.50},
            head={
                "eye_tilt": 0.9,
                "eye_hooding": -0.3,
                "nose_bridge": -1.2,
                "face_width": 0.5,
                "cheekbones": 0.6,
                "jaw_width": -0.3,
                "chin_length": -0.5,
                "lip_fullness": -0.8,
                "neck_length": -2.2,
                "neck_width": -0.5,
            },
        ),
        PersonTraits(
            name="henrik",
            title="a man of 61, grey hair, pale skin, stubble, blue eyes",
            seed=53,
            age=61,
            femininity=0.0,
            skin_tone=0.15,
            undertone=-0.35,
            redness=0.85,
            stubble=0.45,
            eye_colour=(104, 132, 156),
            lip_colour=(176, 112, 104),
            lip_gloss=0.2,
            brow_thickness=0.7,
            brow_arch=0.3,
            brow_colour=(112, 102, 94),
            hair_colour=(112, 102, 94),
            hair_style="short",
            hair_length=0.045,
            hair_wave=0.15,
            hair_grey=0.75,
            garment="vneck",
            garment_colour=(92, 48, 48),
            undershirt_colour=(214, 222, 230),
            background=((118, 128, 122), (50, 58, 56)),
            resting={"mouthSmile": 0.38, "cheekSquint": 0.08},
            head={
                "face_length": 0.4,
                "neck_length": -1.6,
                "chin_projection": 0.4,
                "nose_length": 0.3,
                "eye_hooding": -0.5,
                "lip_fullness": 0.4,
            },
        ),
        PersonTraits(
            name="priya",
            title="a woman of 25, brown skin, dark wavy hair",
            seed=71,
            age=25,
            femininity=1.0,
            skin_tone=0.56,
            undertone=0.35,
            redness=0.35,
            eye_colour=(74, 46, 28),
            lip_colour=(150, 80, 72),
            lip_gloss=0.6,
            makeup=0.75,
            brow_thickness=0.6,
            brow_arch=0.6,
            brow_density=0.75,
            hair_colour=(38, 26, 22),
            hair_style="long",
            hair_length=0.32,
            hair_wave=0.6,
            garment="vneck",
            garment_colour=(150, 92, 44),
            background=((138, 132, 140), (60, 54, 66)),
            resting={"mouthSmile": 0.55},
            head={
                "eye_size": 1.0,
                "eye_tilt": 0.4,
                "eye_hooding": -0.8,
                "lip_fullness": 0.3,
                "nose_length": 0.1,
                "jaw_width": -0.3,
                "chin_length": -0.5,
                "brow_height": -0.6,
                "neck_length": -2.2,
                "neck_width": -0.5,
            },
        ),
    )
}
