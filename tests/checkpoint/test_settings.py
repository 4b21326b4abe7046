"""Window sizes and ranges that files record: what is read, ignored and compared."""

from __future__ import annotations

from pathlib import Path

import foreign_files as foreign
import pytest
import torch
from tiny_detector import make_detector

from streampetr_vit.checkpoint.adapters import detector_to_streampetr
from streampetr_vit.checkpoint.adapters.rotary import (
    rotary_tables_of,
    settings_from_rotary_tables,
)
from streampetr_vit.checkpoint.conversion import convert, convert_file
from streampetr_vit.checkpoint.files import write_checkpoint
from streampetr_vit.checkpoint.loading import SafeCheckpointer
from streampetr_vit.checkpoint.settings import (
    Settings,
    differences,
    parse_settings,
    settings_of,
)
from streampetr_vit.errors import CheckpointError, InputError
from streampetr_vit.modeling.detector import StreamPETR

RANGE = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]
OF_A_CAR = {"reference_to_vehicle": [0.9, 0.0, 1.8, 0.6, 0.0, 0.0, -0.8], "frame_period_s": 0.5}
OF_ANOTHER = {"reference_to_vehicle": [2.0, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0], "frame_period_s": 0.1}


def trained_on(settings: Settings) -> StreamPETR:
    detector = make_detector()
    for name, value in settings.items():
        setattr(detector, name, value)
    return detector


def rotary(pretrain: int = 16, blocks: tuple[int, ...] = (4, 4, 6), head_dim: int = 16) -> Settings:
    sides = {"window": min(blocks), "global": max(blocks), "blocks": list(blocks)}
    return {"rotary": {"head_dim": head_dim, "pretrain": pretrain, **sides}}


def test_another_grid_of_the_pre_training_is_a_difference() -> None:
    (line,) = differences(rotary(pretrain=14), rotary(pretrain=16)).values()
    assert line.startswith("rotary positions span 14 tokens in the file, 16 in the model")
    assert "pt_hw_seq_len=14" in line


def test_every_block_is_compared() -> None:
    (line,) = differences(rotary(blocks=(4, 4, 6)), rotary(blocks=(4, 4, 8))).values()
    assert line.startswith("block 2 has windows of 6 tokens in the file, 8 in the model")


def test_classes_are_compared_by_name(tmp_path: Path, caplog) -> None:
    """Channels mean nothing by themselves: the same names in another order are another detector."""
    trained, other = make_detector(), make_detector()
    trained.class_names, other.class_names = ["car", "person"], ["person", "car"]
    SafeCheckpointer(trained, str(tmp_path)).save("model")
    path = str(tmp_path / "model.pth")
    SafeCheckpointer(trained, require_all=True).load(path)
    message = "class channels are car, person, those of dataset_spec.classes person, car"
    with pytest.raises(CheckpointError, match=message):
        SafeCheckpointer(other, require_all=True).load(path)
    SafeCheckpointer(other).load(path)  # another training may begin from it
    assert message in caplog.text
    # A file or a model that does not say them is not compared.
    del other.class_names
    SafeCheckpointer(other, require_all=True).load(path)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_frame_and_rate_of_the_training_set_stay_with_the_weights(
    tmp_path: Path, ending: str
) -> None:
    trained = trained_on(OF_A_CAR)
    SafeCheckpointer(trained, str(tmp_path)).save("model")
    path, converted = str(tmp_path / "model.pth"), str(tmp_path / f"converted.{ending}")
    conversion = convert_file(path, model=trained_on(OF_ANOTHER))  # no other detector
    write_checkpoint(converted, conversion.tensors, conversion.settings)
    for file in (path, converted):
        new = make_detector(1)
        SafeCheckpointer(new, require_all=True).load(file)
        assert settings_of(new) == settings_of(trained)
        assert OF_A_CAR.items() <= settings_of(new).items()


def test_frame_and_rate_are_those_of_the_present_training_set(tmp_path: Path) -> None:
    """What a file says stands for what is not known, and not for another training's."""
    SafeCheckpointer(trained_on(OF_A_CAR), str(tmp_path)).save("model")
    path = str(tmp_path / "model.pth")
    known, beginning, resumed = trained_on(OF_ANOTHER), make_detector(), make_detector()
    SafeCheckpointer(known, require_all=True).load(path)
    assert OF_ANOTHER.items() <= settings_of(known).items()
    SafeCheckpointer(beginning).load(path)
    assert not OF_A_CAR.keys() & settings_of(beginning).keys()
    SafeCheckpointer(resumed).resume(path)
    assert OF_A_CAR.items() <= settings_of(resumed).items()


def test_a_recipe_names_the_classes_of_its_model() -> None:
    from streampetr_vit.engine import instantiate_model, load_config

    cfg = load_config("configs/quickstart.py")
    with torch.device("meta"):
        model = instantiate_model(cfg)
    assert model.class_names == [c.name for c in cfg.dataset_spec.classes]


@pytest.mark.parametrize("pretrain", [7, 14, 16, 24])
@pytest.mark.parametrize("head_dim", [4, 16, 64])
def test_tables_tell_their_settings(pretrain: int, head_dim: int) -> None:
    settings = rotary(pretrain, (4, 6, 4), head_dim)
    assert settings_from_rotary_tables(rotary_tables_of(settings)) == settings


def test_tables_that_do_not_tell_the_grid_are_not_guessed() -> None:
    settings = rotary(16, (1, 6, 1))  # the windows are of one token
    tables = rotary_tables_of(settings)
    found = settings_from_rotary_tables(tables)
    assert "pretrain" not in found["rotary"] and found["rotary"]["blocks"] == [1, 6, 1]
    assert differences(found, settings) == {} and rotary_tables_of(found) == {}
    with pytest.raises(
        InputError, match="table rope_win.freqs_sin holds numbers that are no sin.*copy"
    ):
        settings_from_rotary_tables({**tables, "rope_win.freqs_sin": torch.full((1, 16), 2.0)})


@pytest.mark.parametrize("table", [torch.zeros(4), torch.zeros(()), torch.zeros(0, 16)])
def test_tables_of_another_shape_are_named(table: torch.Tensor) -> None:
    tables = {**rotary_tables_of(rotary()), "rope_win.freqs_sin": table}
    with pytest.raises(InputError, match=r"rotary table rope_win.freqs_sin has the shape"):
        settings_from_rotary_tables(tables)


@pytest.mark.parametrize(
    "malformed",
    [
        {"rotary": "x"},
        {"rotary": {"blocks": [1]}},
        {"rotary": {**rotary()["rotary"], "window": 0}},
        {"rotary": {**rotary()["rotary"], "blocks": ["4"]}},
        {"point_cloud_range": "abc"},
        {"point_cloud_range": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]},
        {"point_cloud_range": RANGE[:5]},
        {"position_range": 3.0},
        {"code_weights": [1.0, float("nan")]},
        {"match_costs": None},
        {"reference_to_vehicle": 3},
        {"reference_to_vehicle": [0.0] * 7},
        {"reference_to_vehicle": [0.0, 0.0, float("inf"), 1.0, 0.0, 0.0, 0.0]},
        {"reference_to_vehicle": [0.0, 0.0, True, 1.0, 0.0, 0.0, 0.0]},
        {"reference_to_vehicle": [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]},
        {"frame_period_s": 0},
        {"frame_period_s": float("nan")},
        {"frame_period_s": "0.5"},
        {"frame_period_s": [0.5]},
    ],
)
def test_malformed_settings_are_left_out_with_a_warning(malformed: Settings, caplog) -> None:
    (name,) = malformed
    good = {"point_cloud_range": RANGE, **rotary(), **malformed}
    parsed = parse_settings(good, "f.pth")
    assert name not in parsed and len(parsed) == len(good) - 1
    assert f"f.pth: its setting {name}=" in caplog.text
    weights = make_detector().state_dict()
    assert convert(weights, settings=malformed, model=make_detector()).settings == {}


def test_what_is_of_other_projects_is_passed_over(caplog) -> None:
    for recorded in (None, "text", 3, {"lr": 1}, {1: 2}):
        assert parse_settings(recorded, "f.pth") == {}
    assert caplog.text == ""


def test_a_file_with_malformed_settings_loads(tmp_path: Path, caplog) -> None:
    model = make_detector()
    content = {"model": model.state_dict(), "settings": {"rotary": {"blocks": [1]}}}
    torch.save(content, tmp_path / "w.pth")
    SafeCheckpointer(make_detector(1), require_all=True).load(str(tmp_path / "w.pth"))
    assert "is malformed and left out" in caplog.text
    assert convert_file(tmp_path / "w.pth").settings == {}


def as_reference(model: StreamPETR) -> dict[str, torch.Tensor]:
    settings = settings_of(model)
    # The reference's heads need not have the other two.
    settings = {n: settings[n] for n in ("point_cloud_range", "code_weights", "rotary")}
    state = detector_to_streampetr(model.state_dict(), settings)
    return {name: value.clone() for name, value in state.items()}


def test_ranges_and_extra_parts_are_errors_and_weights_of_losses_a_note() -> None:
    weights = as_reference(make_detector())
    assert convert(weights, model=make_detector()).notes == []
    other = make_detector(point_cloud_range=(-25.6, -25.6, -5.0, 25.6, 25.6, 3.0))
    with pytest.raises(CheckpointError, match=r"point_cloud_range is \[-51.2,.* in the file"):
        convert(weights, model=other, allow_other_size=True)
    without = make_detector()
    without.image_head = None
    with pytest.raises(CheckpointError, match=r"another detector.*not in the model: image_head"):
        convert(weights, model=without)
    weights["pts_bbox_head.code_weights"] *= 2
    notes = convert(weights, model=make_detector()).notes
    assert len(notes) == 1 and notes[0].startswith("code_weights is [4,")
    assert "model.criterion.detection.code_weights=[4," in notes[0]


def test_constants_of_odd_shapes_are_not_compared(caplog) -> None:
    weights = as_reference(make_detector())
    weights["pts_bbox_head.pc_range"] = torch.tensor(RANGE).view(2, 3)
    assert "point_cloud_range" not in convert(weights, model=make_detector()).settings
    assert "point_cloud_range=[[" in caplog.text


@pytest.mark.parametrize("branch", ["cls", "reg"])
def test_copies_of_the_branches_are_compared(branch: str) -> None:
    weights = as_reference(make_detector())
    name = next(n for n in weights if n.startswith(f"pts_bbox_head.{branch}_branches.3."))
    weights[name] = weights[name] + 1
    with pytest.raises(InputError, match=rf"{branch}_branches.3.* differs from .*_branches.0"):
        convert(weights)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("pos_embed", (1, 196, 32), "196 rows and the model 197: .*class row"),
        ("pos_embed", (1, 0, 32), "0 rows and the model 197"),
        ("pos_embed", (1, 1, 32), "1 rows and the model 197"),
        ("pos_embed", (197, 32), r"pos_embed \(197, 32\) must be \(1, rows, channels\)"),
        ("pos_embed", (197,), r"pos_embed \(197,\) must be"),
        ("patch_embed.proj.weight", (32, 768), r"\(32, 768\) must have four axes"),
    ],
)
def test_stems_of_odd_shapes_are_named(name: str, shape: tuple[int, ...], message: str) -> None:
    weights = foreign.filled(foreign.vit_shapes(foreign.TINY), foreign.random_values)
    with pytest.raises(InputError, match=message):
        convert({**weights, name: torch.ones(shape)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {1: torch.ones(1)}}, "name 1 of a tensor is a int, not a string"),
        ({"model": {b"a": torch.ones(1)}}, "name b'a' of a tensor is a bytes"),
        ({("a", 0): torch.ones(1)}, r"name \('a', 0\) of a tensor is a tuple"),
        ({"model": {"a": torch.eye(2).to_sparse()}}, "'a' is torch.sparse_coo, not dense"),
        ({"model": {"a": torch.ones(2, device="meta")}}, r"'a' is without data \(meta\)"),
        ({"model": {"a": torch.ones(1).expand(1000)}}, "'a' repeats its numbers"),
    ],
)
def test_entries_that_are_no_named_whole_tensors(content: dict, message: str, tmp_path: Path):
    torch.save(content, tmp_path / "w.pth")
    for read in (convert_file, SafeCheckpointer(make_detector()).load):
        with pytest.raises(CheckpointError, match=message):
            read(str(tmp_path / "w.pth"))
