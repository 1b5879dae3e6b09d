"""Safe extraction of zip and tar archives: nothing outside the folder, no links, bounded in size."""

import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

_CHUNK = 1 << 20


def extract(
    archive: str | os.PathLike,
    directory: str | os.PathLike,
    *,
    max_bytes: int = 1 << 35,
    max_members: int = 10_000,
) -> Path:
    """Unpacks a zip or tar archive (``.gz``, ``.bz2``, ``.xz`` too) into a new ``directory``.

    Members are written one by one as plain files into a temporary sibling, which is renamed at the end:
    the directory appears whole or not at all. Sizes are counted while unpacking, whatever the headers say.

    Args:
      archive: the file.
      directory: must not exist yet.
      max_bytes: bound of the unpacked size in all (default 32 GiB).
      max_members: bound of the number of files and folders.

    Raises:
      FileExistsError: ``directory`` exists.
      ValueError: not an archive, damaged, encrypted, too large, or with a member that is a link, a device,
        a duplicate, or lies outside of the folder.
    """
    archive, directory = Path(archive), Path(directory)
    if directory.exists():
        raise FileExistsError(f"{directory} exists already; remove it or choose another folder")
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", suffix=".partial", dir=directory.parent))
    try:
        _unpack(archive, partial, max_bytes, max_members)
        os.replace(partial, directory)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(
            f"{archive} is damaged or of a kind that is not read ({error}); remove it"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return directory


def _unpack(archive: Path, folder: Path, max_bytes: int, max_members: int) -> None:
    remaining = max_bytes
    for count, (name, is_folder, source) in enumerate(_members(archive), start=1):
        if count > max_members:
            raise ValueError(f"{archive} has more than {max_members} members; it is not unpacked")
        target = folder / _safe_name(archive, name)
        if is_folder:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise ValueError(f"{archive} holds {name!r} more than once; it is not unpacked")
        with target.open("xb") as handle, source:
            while chunk := source.read(_CHUNK):
                remaining -= len(chunk)
                if remaining < 0:
                    raise ValueError(f"{archive} unpacks to more than {max_bytes} bytes; it is not unpacked")
                handle.write(chunk)


def _members(archive: Path) -> Iterator[tuple[str, bool, IO[bytes] | None]]:
    """(name, whether a folder, open source) of each member; anything but files and folders is refused."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for member in zipped.infolist():
                kind = stat.S_IFMT(member.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise ValueError(
                        f"{archive} holds {member.filename!r}, a link or device; it is not unpacked"
                    )
                if member.flag_bits & 1:
                    raise ValueError(
                        f"{archive} holds {member.filename!r}, which is encrypted; it is not unpacked"
                    )
                yield member.filename, member.is_dir(), None if member.is_dir() else zipped.open(member)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tarred:
            for member in tarred:
                if not (member.isreg() or member.isdir()):
                    raise ValueError(f"{archive} holds {member.name!r}, a link or device; it is not unpacked")
                yield member.name, member.isdir(), None if member.isdir() else tarred.extractfile(member)
    else:
        raise ValueError(f"{archive} is neither a zip nor a tar archive; remove it and download it again")


def _safe_name(archive: Path, name: str) -> PurePosixPath:
    """The member's path inside the folder; ValueError if it could lead anywhere else."""
    path = PurePosixPath(name)
    strange = "\\" in name or "\0" in name or ":" in name or not path.parts
    if strange or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{archive} holds {name!r}, which leads out of its folder; it is not unpacked")
    return path


__all__ = ["extract"]
