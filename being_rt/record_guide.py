"""What to film for a clone: thirty seconds, as text and as a page that prompts while the camera runs.

Each act is there for something that training needs: an empty room for the background, turns for the sides of the head
and for the focal length, lids and lips that close for blinks and /p b m/, teeth, and speech as it will be used.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from being_rt.errors import FileFormatError
from being_rt.files import atomic_write
from being_rt.jobs import FilePath
from being_rt.page import text


@dataclass(frozen=True)
class Act:
    """A few seconds before the camera."""

    seconds: float
    do: str
    say: str = ""


BEFORE = (
    "Put the camera on something that does not move, at the height of your eyes, an arm and a half away.",
    "Lock exposure and focus; film at 1080p or more, 25 to 30 frames a second, upright or wide, but no slow motion.",
    "Even light from the front: a window or two lamps, no lamp behind you, no mirrors.",
    "Hair off the face, no glasses that mirror, nothing before the mouth. Head and shoulders in the picture.",
    "Nobody else in the picture.",
)

ACTS = (
    Act(2, "Stay out of the picture: the empty room."),
    Act(3, "Sit down, look into the lens, face at rest. Blink twice."),
    Act(
        5,
        "Turn the head slowly to one side, then to the other, as far as you still see the lens; look at it.",
    ),
    Act(2, "A little up, a little down."),
    Act(2, "Close the eyes for a second; open them wide."),
    Act(2, "A broad smile that shows the teeth, then a pout."),
    Act(2, "Open the mouth wide, once."),
    Act(7, "Talk as you usually do.", "My puppy Bob may help Papa find five very warm vests before we both go home."),
    Act(5, "Go on talking, and move as you do when you talk.", "She saw a huge blue ship; each of us chose the shore."),
)


@dataclass(frozen=True, kw_only=True)
class RecordGuide:
    """What to film for a clone, in 30 seconds: as text, or as a page that prompts while the camera runs."""

    page: FilePath = ""
    """Write a teleprompter page (.html) instead: open it beside the camera, press the space bar, film."""

    def run(self) -> int:
        """Print the text, or write the page. Raises ``FileFormatError``."""
        if not self.page:
            print(guide_text())
            return 0
        write_page(self.page)
        print(f"{Path(self.page).resolve()}: open it beside the camera and press the space bar")
        return 0


def duration() -> float:
    """Seconds that all acts take."""
    return sum(act.seconds for act in ACTS)


def guide_text() -> str:
    """The guide as lines of text.

    >>> guide_text().splitlines()[0]
    'Before you film:'
    """
    lines = ["Before you film:", *(f"  - {line}" for line in BEFORE), "", f"Then, in {duration():.0f} seconds:"]
    start = 0.0
    for act in ACTS:
        lines.append(f"  {start:4.0f} s  {act.do}" + (f' "{act.say}"' if act.say else ""))
        start += act.seconds
    return "\n".join([*lines, "", "Then: being clone VIDEO"])


def write_page(path: str | os.PathLike[str]) -> None:
    """Write the teleprompter: one HTML file that needs nothing else. Raises ``FileFormatError``."""
    acts = [{"seconds": act.seconds, "do": act.do, "say": act.say} for act in ACTS]
    before = "".join(f"<li>{text(line)}</li>" for line in BEFORE)
    with atomic_write(path, FileFormatError) as temporary:
        temporary.write_text(
            _PAGE.replace("BEFORE", before).replace("ACTS", json.dumps(acts).replace("</", "<\\/")), encoding="utf-8"
        )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>What to film</title>
<style>
body { margin: 0; min-height: 100vh; background: #111; color: #eee; font: 4vh/1.35 system-ui, sans-serif;
       display: flex; flex-direction: column; align-items: center; justify-content: flex-start; text-align: center; }
main { max-width: 44em; padding: 3vh 4vw; } ul { text-align: left; font-size: 2.6vh; } .say { color: #ffd76a; }
.next { color: #888; font-size: 2.6vh; }
#bar { position: fixed; bottom: 0; left: 0; height: 1.2vh; background: #4aa3ff; }
</style></head><body><main id="main"><h3>Before you film</h3><ul>BEFORE</ul>
<p>Start the camera, then press the space bar or touch here.</p></main><div id="bar"></div>
<script>
const acts = ACTS, total = acts.reduce((sum, act) => sum + act.seconds, 0);
const main = document.getElementById("main"), bar = document.getElementById("bar");
let start = null;
function line(name, words) {
  const element = document.createElement("p"); element.className = name; element.textContent = words; return element;
}
function show(now) {
  const time = (now - start) / 1000;
  bar.style.width = Math.min(100, 100 * time / total) + "%";
  let end = 0, index = acts.findIndex(act => (end += act.seconds) > time);
  if (index < 0) {
    main.replaceChildren(line("do", "Done. Stop the camera, then: being clone VIDEO"));
    start = null;
    return;
  }
  if (main.dataset.index !== String(index)) {
    main.dataset.index = index;
    const parts = [line("do", acts[index].do)];
    if (acts[index].say) parts.push(line("say", acts[index].say));
    if (index + 1 < acts.length) parts.push(line("next", "next: " + acts[index + 1].do));
    main.replaceChildren(...parts);
  }
  requestAnimationFrame(show);
}
function begin() { if (start === null) { start = performance.now(); requestAnimationFrame(show); } }
addEventListener("keydown", event => { if (event.code === "Space") { event.preventDefault(); begin(); } });
addEventListener("pointerdown", begin);
</script></body></html>
"""
