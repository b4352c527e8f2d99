"""Files are written whole or not at all, and whether they can be is known beforehand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fixedpoint import files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "result.txt"
    files.write_text(path, "whole")
    assert path.read_text() == "whole"
    assert names(path.parent) == ["result.txt"]


def test_a_file_gets_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    files.write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failure_half_way_keeps_the_old_file(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "result.txt"
    path.write_text("old")

    def write() -> None:
        with files.replacing(path) as temporary:
            temporary.write_text("ne")
            assert path.read_text() == "old", "the old file stays until the new one is whole"
            raise failure

    with pytest.raises(failure):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


def test_a_folder_in_the_way_keeps_its_contents(tmp_path: Path) -> None:
    (tmp_path / "result" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="result"):
        files.write_text(tmp_path / "result", "new")
    assert names(tmp_path) == ["result"]
    assert names(tmp_path / "result") == ["inside"]


def test_checking_a_folder_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "new" / "newer", Path("relative")):
        files.check_folder(folder)
        files.check_file(folder / "file")
    assert names(tmp_path) == []


def test_a_folder_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (
        tmp_path / "file",
        tmp_path / "file" / "below",
        tmp_path / "file" / "below" / "deep",
        Path(os.devnull) / "x",
    ):
        with pytest.raises(OSError, match=f"^out: {folder} cannot be written"):
            files.check_folder(folder)
        with pytest.raises(OSError, match=r"^out: "):
            files.check_file(folder / "result")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"^out: expected a file, {tmp_path} is a folder"):
        files.check_file(tmp_path)
