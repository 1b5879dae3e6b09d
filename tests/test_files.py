"""Writing files: one sentence for an error, one training at a time in a directory."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from jaxrec import files
from jaxrec.files import training_alone, writing

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


def test_an_error_names_the_place_and_a_way_out(tmp_path):
    with (
        pytest.raises(
            OSError, match=f"cannot write to {tmp_path}: Read-only.*; free space or take a walk"
        ) as caught,
        writing(tmp_path, instead="take a walk"),
    ):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    assert caught.value.errno == errno.EROFS


def test_the_directory_is_free_again_after_an_error(tmp_path):
    with pytest.raises(KeyError), training_alone(tmp_path):
        raise KeyError
    with training_alone(tmp_path), pytest.raises(OSError, match="another training"), training_alone(tmp_path):
        pass


def test_the_directory_is_free_again_when_its_process_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / files.LOCK)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        try:
            with pytest.raises(OSError, match="at work in .*an unknown process"), training_alone(tmp_path):
                pass
        finally:
            process.send_signal(signal.SIGKILL)
    with training_alone(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / files.LOCK).read_text()


def test_nobody_is_kept_out_where_files_cannot_be_locked(tmp_path, monkeypatch):
    def unable(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.fcntl, "flock", unable)
    with training_alone(tmp_path), training_alone(tmp_path):
        pass
