"""Small text files are whole or not there; digests are those of the standard."""

import os
import stat

import pytest

from models.common import files


def test_a_digest_is_that_of_the_standard(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert files.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_file_is_replaced_and_its_folder_made(tmp_path):
    path = tmp_path / "new" / "note.txt"
    files.write_whole(path, "old")
    files.write_whole(path, "newer")
    assert path.read_text() == "newer"
    assert os.listdir(path.parent) == ["note.txt"]


def test_a_write_that_fails_leaves_the_old_text_and_nothing_else(tmp_path):
    path = tmp_path / "note.txt"
    files.write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_whole(path, "begun, then \ud800")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["note.txt"]


def test_others_may_read_what_one_wrote_into_a_shared_cache(tmp_path):
    before = os.umask(0o022)
    try:
        files.write_whole(tmp_path / "note.txt", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "note.txt").stat().st_mode) == 0o644
