"""Downloads, against a server on loopback that misbehaves."""

import errno
import hashlib
import json
import multiprocessing
import shutil

import numpy as np
import pytest
from loopback import etag_of, loopback_server

from jaxrec.data import download
from jaxrec.data.download import fetch
from jaxrec.data.transfer import check_address

BODY = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def server():
    with loopback_server() as made:
        made.files["/data.bin"] = BODY
        yield made


def get(server, path, **arguments):
    return fetch(f"{server.address}/data.bin", path, allow_http_loopback=True, timeout=5, **arguments)


def leave_part(server, path, size, **known):
    """What an interrupted download leaves behind."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(BODY[:size])
    record = {"url": f"{server.address}/data.bin", "size": len(BODY), "etag": etag_of(BODY)} | known
    part.with_name(part.name + ".json").write_text(json.dumps(record))


def test_a_whole_download(server, tmp_path):
    seen = []
    path = get(server, tmp_path / "deep" / "data.bin", progress=lambda *state: seen.append(state))
    assert path.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    digest = hashlib.sha256(BODY).hexdigest()
    assert path.with_name("data.bin.sha256").read_text() == f"{digest}  data.bin\n"
    assert not list(path.parent.glob("*.part*"))
    get(server, path)
    assert len(server.requests) == 1


@pytest.mark.parametrize("known", [{}, {"etag": None}, {"etag": 'W/"weak"'}], ids=["etag", "size", "weak"])
def test_an_interrupted_download_is_resumed(server, tmp_path, known):
    if known:
        server.habits["no-etag"] = True
    path = tmp_path / "data.bin"
    leave_part(server, path, 100_000, **{key: value for key, value in known.items() if value})
    if known == {"etag": None}:
        record = tmp_path / "data.bin.part.json"
        record.write_text(
            json.dumps({k: v for k, v in json.loads(record.read_text()).items() if k != "etag"})
        )
    seen = []
    get(server, path, progress=lambda *state: seen.append(state[0]))
    assert path.read_bytes() == BODY
    assert server.requests[0].range == "bytes=100000-"
    assert seen[0] > 100_000


def test_a_download_that_is_whole_already_is_only_renamed(server, tmp_path):
    path = tmp_path / "data.bin"
    leave_part(server, path, len(BODY))
    assert get(server, path).read_bytes() == BODY


def test_a_server_that_ignores_ranges_sends_the_whole(server, tmp_path):
    server.habits["no-range"] = True
    path = tmp_path / "data.bin"
    leave_part(server, path, 100_000)
    assert get(server, path).read_bytes() == BODY


@pytest.mark.parametrize("etag", [True, False])
def test_a_file_that_changed_meanwhile_is_fetched_anew(server, tmp_path, etag):
    path = tmp_path / "data.bin"
    leave_part(server, path, 100_000)
    server.files["/data.bin"] = changed = BODY[::-1] + b"more"
    server.habits.update({} if etag else {"no-etag": True})
    if not etag:
        record = tmp_path / "data.bin.part.json"
        record.write_text(json.dumps({"url": f"{server.address}/data.bin", "size": len(BODY)}))
    assert get(server, path).read_bytes() == changed


def test_a_shrunken_file_is_fetched_anew(server, tmp_path):
    path = tmp_path / "data.bin"
    leave_part(server, path, 100_000)
    (tmp_path / "data.bin.part.json").write_text(
        json.dumps({"url": f"{server.address}/data.bin", "size": len(BODY)})
    )
    server.files["/data.bin"] = b"short"
    assert get(server, path).read_bytes() == b"short"


@pytest.mark.parametrize(
    "text", ["not json", "[]", json.dumps({"url": "https://elsewhere.org/x", "size": 5})]
)
def test_a_part_of_unknown_origin_is_not_used(server, tmp_path, text):
    path = tmp_path / "data.bin"
    (tmp_path / "data.bin.part").write_bytes(b"of something else")
    (tmp_path / "data.bin.part.json").write_text(text)
    assert get(server, path).read_bytes() == BODY
    assert server.requests == [("/data.bin", None, None)]


def test_a_broken_transfer_goes_on_by_itself(server, tmp_path):
    server.habits["truncate"] = 120_000
    assert get(server, tmp_path / "data.bin").read_bytes() == BODY
    assert [request.range for request in server.requests] == [None, "bytes=120000-", "bytes=240000-"]


def test_a_transfer_that_keeps_breaking_is_an_error_and_resumable(server, tmp_path):
    server.habits["truncate"] = 50_000
    path = tmp_path / "data.bin"
    with pytest.raises(ConnectionError, match="broke off 2 times, the last time 200000 bytes before the end"):
        get(server, path, attempts=2)
    assert not path.exists()
    server.habits.clear()
    assert get(server, path).read_bytes() == BODY
    assert server.requests[-1].range == "bytes=100000-"


def test_a_server_without_sizes_or_validators(server, tmp_path):
    server.habits.update({"no-length": True, "no-etag": True})
    assert get(server, tmp_path / "data.bin").read_bytes() == BODY


def test_the_publishers_checksum_decides(server, tmp_path):
    right = hashlib.md5(BODY).hexdigest()
    md5_url = f"{server.address}/data.bin.md5"
    server.files["/data.bin.md5"] = f"MD5 (data.bin) = {right}\n".encode()
    assert get(server, tmp_path / "one" / "data.bin", md5_url=md5_url).is_file()
    server.files["/data.bin.md5"] = f"{'0' * 32}  data.bin\n".encode()
    with pytest.raises(ValueError, match=f"has the MD5 {right}, its publisher says 0000"):
        get(server, tmp_path / "two" / "data.bin", md5_url=md5_url)
    assert [path.name for path in (tmp_path / "two").iterdir() if "lock" not in path.name] == [
        "data.bin.part.json"
    ]
    server.files["/data.bin.md5"] = b"<html>busy</html>"
    with pytest.raises(ValueError, match="should hold one MD5 and holds 0"):
        get(server, tmp_path / "three" / "data.bin", md5_url=md5_url)
    del server.files["/data.bin.md5"]
    with pytest.warns(UserWarning, match="could not be checked"):
        get(server, tmp_path / "four" / "data.bin", md5_url=md5_url)


def test_later_downloads_are_held_to_the_first(server, tmp_path):
    path = get(server, tmp_path / "data.bin")
    path.unlink()
    server.files["/data.bin"] = b"something else"
    with pytest.raises(ValueError, match="was kept from its first download"):
        get(server, path)
    assert not path.exists()
    server.files["/data.bin"] = BODY
    get(server, path)
    path.write_bytes(b"damaged on disk")
    with pytest.raises(ValueError, match="was kept from its first download"):
        get(server, path)


def test_absent_files_and_servers_are_named(server, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.bin is not there \(404\)"):
        fetch(f"{server.address}/none.bin", tmp_path / "x", allow_http_loopback=True)
    with pytest.raises(ConnectionError, match=r"cannot be reached .*check the network"):
        fetch("http://127.0.0.1:9/x", tmp_path / "x", allow_http_loopback=True, timeout=5)


def test_only_https(server, tmp_path):
    for url in ("http://example.org/x", "ftp://example.org/x", "file:///etc/passwd", "https:///x"):
        with pytest.raises(ValueError, match="is not an https address"):
            fetch(url, tmp_path / "x", allow_http_loopback=True)
    with pytest.raises(ValueError, match="is not an https address"):
        fetch(f"{server.address}/data.bin", tmp_path / "x")
    server.redirects["/moved"] = "http://example.org/data.bin"
    with pytest.raises(ValueError, match=r"example.org/data.bin is not an https address"):
        fetch(f"{server.address}/moved", tmp_path / "x", allow_http_loopback=True)
    server.redirects["/moved"] = "/data.bin"
    path = fetch(f"{server.address}/moved", tmp_path / "x", allow_http_loopback=True)
    assert path.read_bytes() == BODY
    check_address("https://example.org/x", False)


def test_a_full_disk_is_one_sentence(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"no room left on the disk for data.bin; free some space") as caught:
        get(server, tmp_path / "data.bin")
    assert caught.value.errno == errno.ENOSPC


def _fetch_in_a_process(address, path):
    fetch(f"{address}/data.bin", path, allow_http_loopback=True, timeout=20)


def test_two_processes_write_one_file_once(server, tmp_path):
    context = multiprocessing.get_context("spawn")
    path = tmp_path / "data.bin"
    processes = [context.Process(target=_fetch_in_a_process, args=(server.address, path)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert path.read_bytes() == BODY
    assert len(server.requests) == 1
