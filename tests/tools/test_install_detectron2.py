"""The set-up's detectron2: mends, hash check, wheel, and what is accepted. No network."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import subprocess
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import detectron2_wheel as recipe
import install_detectron2 as tool
import pytest
import torch

# As much of detectron2 v0.6 as the mends touch: each replaced text stands as it does there.
ORIGINALS = {
    "detectron2/__init__.py": (
        "# Copyright\n\nfrom .utils.env import setup_environment\n\nsetup_environment()\n"
        '__version__ = "0.6"\n'
    ),
    "detectron2/utils/__init__.py": "",
    "detectron2/utils/env.py": "def setup_environment():\n    pass\n",
    "detectron2/layers/__init__.py": "",
    "detectron2/layers/deform_conv.py": "import math\n\nfrom detectron2 import _C\n\nx = 1\n",
    "detectron2/layers/roi_align_rotated.py": "import math\n\nfrom detectron2 import _C\n\nx = 1\n",
    "detectron2/layers/rotated_boxes.py": "import math\n\nfrom detectron2 import _C\n\nx = 1\n",
    "detectron2/evaluation/fast_eval_api.py": "import math\n\nfrom detectron2 import _C\n\nx = 1\n",
    "detectron2/data/transforms/transform.py": (
        "    def __init__(self, src_rect, output_size, interp=Image.LINEAR, fill=0):\n"
    ),
    "detectron2/model_zoo/model_zoo.py": (
        "import os\nfrom typing import Optional\nimport pkg_resources\nimport torch\n\n"
        "    cfg_file = pkg_resources.resource_filename(\n"
        '        "detectron2.model_zoo", os.path.join("configs", config_path)\n'
        "    )\n"
    ),
}


@pytest.fixture
def sdist(tmp_path: Path) -> Path:
    """A small archive laid out like detectron2's, with files that do not belong in a wheel."""
    extra = {
        "LICENSE": "Apache License\n",
        "setup.py": "raise SystemExit('must not be run')\n",
        "tools/train_net.py": "",
        "projects/PointRend/point_rend/__init__.py": "name = 'point_rend'\n",
        "projects/PointRend/train_net.py": "",
    }
    path = tmp_path / "sdist.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in {**ORIGINALS, **extra}.items():
            entry = tarfile.TarInfo(f"pb1-detectron2-0.6/{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("pb1-detectron2-0.6/detectron2/link.py")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    return path


def build(sdist: Path, folder: Path) -> Path:
    return recipe.build_wheel(sdist, folder, hashlib.sha256(sdist.read_bytes()).hexdigest())


@pytest.mark.parametrize("item", recipe.MENDS, ids=lambda item: f"{item.path}-{item.old[:12]!r}")
def test_mend_replaces_the_original_text_once(item: recipe.Mend) -> None:
    original = ORIGINALS[item.path]
    mended = item.apply(original)
    assert mended == original.replace(item.old, item.new) != original


@pytest.mark.parametrize("item", recipe.MENDS, ids=lambda item: f"{item.path}-{item.old[:12]!r}")
def test_mend_fails_loudly_when_the_text_is_absent_or_repeated(item: recipe.Mend) -> None:
    original = ORIGINALS[item.path]
    for text, count in ((original.replace(item.old, ""), 0), (original + item.old, 2)):
        with pytest.raises(recipe.WheelError, match=f"(?s){item.path}.*found {count}"):
            item.apply(text)


def test_mend_names_a_missing_file() -> None:
    files = {path: text.encode() for path, text in ORIGINALS.items()}
    del files["detectron2/model_zoo/model_zoo.py"]
    with pytest.raises(recipe.WheelError, match="model_zoo.py: not in the archive"):
        recipe.mend(files)


def test_no_mended_file_names_what_is_gone() -> None:
    mended = recipe.mend({path: text.encode() for path, text in ORIGINALS.items()})
    for path, content in mended.items():
        assert b"pkg_resources" not in content, path
        assert b"Image.LINEAR" not in content, path
        assert b"\nfrom detectron2 import _C\n" not in content, path


def test_another_archive_is_refused_before_it_is_read(sdist: Path, tmp_path: Path) -> None:
    with pytest.raises(recipe.WheelError, match=f"expected {recipe.SDIST_SHA256}"):
        recipe.build_wheel(sdist, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command_line_refuses_another_archive(
    sdist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--replace", "--sdist", str(sdist), "--wheel-dir", str(tmp_path / "out")]
    assert tool.main(arguments) == 1
    assert "sha256 is" in capsys.readouterr().err


def test_record_lists_every_file_with_its_hash(sdist: Path, tmp_path: Path) -> None:
    wheel = build(sdist, tmp_path)
    assert wheel.name == "detectron2-0.6-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    rows = list(csv.reader(contents["detectron2-0.6.dist-info/RECORD"].decode().splitlines()))
    assert {row[0] for row in rows} == set(contents)
    for path, digest, size in rows:
        if path.endswith("RECORD"):
            assert (digest, size) == ("", "")
            continue
        expected = base64.urlsafe_b64encode(hashlib.sha256(contents[path]).digest())
        assert digest == "sha256=" + expected.rstrip(b"=").decode()
        assert int(size) == len(contents[path])


def test_wheel_holds_the_package_and_its_projects_only(sdist: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build(sdist, tmp_path)) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = archive.read("detectron2-0.6.dist-info/METADATA").decode()
    added = {f"detectron2/{path.name}" for path in recipe.ADDITIONS.glob("*.py")}
    project = {"detectron2/projects/point_rend/__init__.py"}
    assert len(added) == 2
    assert names == set(ORIGINALS) | added | project
    assert "\nName: detectron2\nVersion: 0.6\n" in metadata
    assert "\nRequires-Dist: black\n" in metadata


def test_same_archive_gives_the_same_bytes(sdist: Path, tmp_path: Path) -> None:
    first, second = build(sdist, tmp_path / "a"), build(sdist, tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()


def test_wheel_is_importable_and_its_operators_refuse_clearly(sdist: Path, tmp_path: Path) -> None:
    code = (
        "import detectron2; from detectron2.layers import rotated_boxes\n"
        "assert not hasattr(rotated_boxes._C, 'box_iou_rotated')\n"
        "rotated_boxes._C.box_iou_rotated"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(build(sdist, tmp_path))},
    )
    assert (
        run.stderr.strip()
        .splitlines()[-1]
        .startswith("AttributeError: detectron2._C.box_iou_rotated is a compiled operator")
    )


def test_importable_detectron2_is_accepted_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main([]) == 0
    out = capsys.readouterr().out
    assert "accepted detectron2" in out
    assert "nothing was installed" in out


def write_package(folder: Path, init: str) -> None:
    package = folder / "detectron2"
    package.mkdir()
    (package / "__init__.py").write_text(init)
    for name in ("checkpoint", "data", "engine", "evaluation", "solver"):
        (package / f"{name}.py").touch()
    (package / "config.py").write_text("LazyCall = LazyConfig = instantiate = None\n")


def test_own_build_with_operators_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(tmp_path, '__version__ = "0.7.dev"\n')
    (tmp_path / "detectron2" / "_C.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = tool.probe()
    assert found is not None
    assert found.version == "0.7.dev"
    assert found.location == str(tmp_path / "detectron2")
    assert "with compiled operators" in str(found)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("import no_such_module\n", "cannot be imported(?s:.*)no_such_module(?s:.*)--replace"),
        ('__version__ = "0.5"\n', "too old"),
    ],
)
def test_unusable_detectron2_is_not_replaced_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init: str, message: str
) -> None:
    write_package(tmp_path, init)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(tool.InstallError, match=message):
        tool.install(None, None, replace=False)


def test_only_a_wheel_of_an_older_recipe_is_outdated() -> None:
    def made_by(generator: str) -> tool.Installed:
        return tool.Installed("0.6", "/x", False, f"Wheel-Version: 1.0\nGenerator: {generator}\n")

    assert not made_by(recipe.GENERATOR).outdated
    assert not made_by("bdist_wheel (0.45)").outdated
    older = recipe.GENERATOR.replace(f"recipe {recipe.RECIPE}", f"recipe {recipe.RECIPE - 1}")
    assert made_by(older).outdated


def load_torchvision_mend(monkeypatch: pytest.MonkeyPatch, folder: Path) -> types.ModuleType:
    """Run the added module where the only torchvision is the one in ``folder``."""
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    module = types.ModuleType("mend")
    source = (recipe.ADDITIONS / "_torchvision_operators.py").read_text()
    exec(compile(source, "mend", "exec"), module.__dict__)
    return module


@pytest.fixture
def broken_torchvision(tmp_path: Path) -> Path:
    """A torchvision whose extension is there but cannot be loaded."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('must not be imported')\n")
    (package / "_C.so").write_bytes(b"not a library")
    return tmp_path


def test_torchvision_schemas_are_defined_where_its_extension_cannot_be_loaded(
    broken_torchvision: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defined: list[str] = []
    monkeypatch.setattr(torch.library, "define", lambda name, schema: defined.append(name))
    monkeypatch.setattr(torch.ops, "torchvision", types.SimpleNamespace(), raising=False)
    module = load_torchvision_mend(monkeypatch, broken_torchvision)
    assert defined == module.DEFINED == ["torchvision::nms", "torchvision::qnms"]


def test_torchvision_is_left_alone_where_its_extension_loads(
    broken_torchvision: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    monkeypatch.setattr(torch.library, "define", lambda *_: pytest.fail("defined a schema"))
    module = load_torchvision_mend(monkeypatch, broken_torchvision)
    assert loaded == [str(broken_torchvision / "torchvision" / "_C.so")]
    assert module.DEFINED == []
