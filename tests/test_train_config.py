"""The configuration of a training run: checked when made, the same through JSON, honest about what it does not know."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from being_rt.errors import FileFormatError, InvalidParameterError
from being_rt.train.config import FeedConfig, LossConfig, ModelConfig, ScheduleConfig, TrackConfig, TrainConfig


def test_json_gives_the_same_record(tmp_path: Path) -> None:
    config = TrainConfig(
        model=ModelConfig(head_gaussians=500, channels=("position", "colour"), point_sizes=(32,)),
        schedule=ScheduleConfig(steps=7),
        feed=FeedConfig(window=(64, 32)),
        seed=5,
    )
    config.save(tmp_path / "config.json")
    assert TrainConfig.load(tmp_path / "config.json") == config


def test_what_json_leaves_out_has_its_default() -> None:
    expected = replace(TrainConfig(), loss=LossConfig(l1=1.0))
    assert TrainConfig.from_json('{"loss": {"l1": 1}}') == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "the configuration must be an object"),
        ('{"modle": {}}', "unknown field modle; did you mean model?"),
        ('{"schedule": {"step": 5}}', r"unknown field schedule\.step; did you mean schedule\.steps?"),
        ('{"schedule": {"steps": 5.5}}', r"schedule\.steps must be int, got 5\.5"),
        ('{"schedule": {"steps": true}}', r"schedule\.steps must be int, got True"),
        ('{"model": {"channels": ["position", "shine"]}}', r"model\.channels\[1\] must be one of position"),
        ('{"feed": {"window": [64]}}', r"feed\.window must be tuple"),
        ('{"loss": 3}', "loss must be an object, got 3"),
        ('{"model": {"learning_rates": {"colour": "fast"}}}', r"model\.learning_rates\.colour must be float"),
    ],
)
def test_wrong_json_names_the_field(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        TrainConfig.from_json(text)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(FileFormatError, match=r"config\.json: "):
        TrainConfig.load(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"schedule": ScheduleConfig(steps=0)}, r"schedule\.steps must be at least 1, got 0"),
        ({"schedule": ScheduleConfig(relocate_start=0.9)}, "relocate_start"),
        ({"loss": LossConfig(mouth=400.0)}, r"loss\.mouth must be"),
        ({"loss": LossConfig(l1=-1.0)}, r"loss\.l1 must not be negative"),
        ({"loss": LossConfig(perceptual_start=1.5)}, r"loss\.perceptual_start must be a share 0\.\.1, got 1\.5"),
        ({"loss": LossConfig(perceptual=-0.1)}, r"loss\.perceptual must not be negative"),
        ({"feed": FeedConfig(reduction=3)}, r"feed\.reduction must be 2 or 4"),
        ({"tracks": TrackConfig(expression=float("nan"))}, r"tracks\.expression must be finite, got nan"),
        ({"model": ModelConfig(anchors=2)}, r"model\.anchors"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_wrong_values_are_refused(part: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        TrainConfig(**part)  # type: ignore[arg-type]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"none\.json does not exist"):
        TrainConfig.load(tmp_path / "none.json")


def test_the_text_is_a_plain_object() -> None:
    assert json.loads(TrainConfig().to_json())["model"]["learning_rates"]["position"] == 1.6e-4
