"""Extraction: whole archives come out, hostile and damaged ones are refused and leave nothing."""

import io
import stat
import tarfile
import zipfile

import numpy as np
import pytest

from jaxrec.data.archive import extract

NOISE = np.random.default_rng(0).bytes(100_000)


def zip_of(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, body in members:
            made.writestr(name, body)
    return path


def tar_of(path, members):
    with tarfile.open(path, "w:gz") as made:
        for name, body in members:
            member = tarfile.TarInfo(name)
            if isinstance(body, bytes):
                member.size = len(body)
                made.addfile(member, io.BytesIO(body))
            else:
                member.type, member.linkname = body
                made.addfile(member)
    return path


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_extraction(tmp_path, make):
    archive = make(tmp_path / "a", [("ml/ratings.csv", b"1,2"), ("ml/deep/b.txt", b"x" * 10)])
    folder = extract(archive, tmp_path / "out")
    assert (folder / "ml" / "ratings.csv").read_bytes() == b"1,2"
    assert (folder / "ml" / "deep" / "b.txt").read_bytes() == b"x" * 10
    with pytest.raises(FileExistsError, match="exists already"):
        extract(archive, tmp_path / "out")


@pytest.mark.parametrize("make", [zip_of, tar_of])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "C:/evil", "a\\..\\evil"])
def test_paths_that_escape_are_refused(tmp_path, make, name):
    archive = make(tmp_path / "a", [("fine", b"1"), (name, b"2")])
    with pytest.raises(ValueError, match="leads out of its folder"):
        extract(archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_links_and_devices_are_refused(tmp_path):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archives = [zip_of(tmp_path / "z", [(info, "/etc/passwd")])]
    for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
        archives.append(tar_of(tmp_path / f"t{number}", [("link", (kind, "/etc/passwd"))]))
    for archive in archives:
        with pytest.raises(ValueError, match="a link or device"):
            extract(archive, tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_bombs_are_refused(tmp_path, make):
    archive = make(tmp_path / "a", [("zeros", bytes(5_000_000))])
    assert archive.stat().st_size < 20_000
    with pytest.raises(ValueError, match="unpacks to more than 1000000 bytes"):
        extract(archive, tmp_path / "out", max_bytes=1_000_000)
    many = make(tmp_path / "b", [(f"file{index}", b"") for index in range(12)])
    with pytest.raises(ValueError, match="more than 10 members"):
        extract(many, tmp_path / "out", max_members=10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_damaged_archives_are_named(tmp_path):
    archive = zip_of(tmp_path / "a", [("x", NOISE)])
    whole = archive.read_bytes()
    archive.write_bytes(whole[:1000] + bytes(1000) + whole[2000:])
    with pytest.raises(ValueError, match="is damaged"):
        extract(archive, tmp_path / "out")
    archive.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="neither a zip nor a tar"):
        extract(archive, tmp_path / "out")
    twice = tar_of(tmp_path / "t", [("x", b"1"), ("x", b"2")])
    with pytest.raises(ValueError, match="more than once"):
        extract(twice, tmp_path / "out")
    assert not (tmp_path / "out").exists()
