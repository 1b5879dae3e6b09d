"""What every script does the same way: output, errors in one sentence, compiled programs kept."""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import jax
from plugins import import_plugins
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from jaxrec.devices import distributed

NUMBERS_EXIT_CODE, INPUT_EXIT_CODE, INTERRUPT_EXIT_CODE = 1, 2, 130
PLAIN_WIDTH = 110


def make_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console; into a file or a pipe it writes plain lines of a fixed width. A quiet one shows nothing."""
    console = Console(stderr=stderr, highlight=False, quiet=quiet)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, width=PLAIN_WIDTH, quiet=quiet)
    return console


def say(console: Console, text: str) -> None:
    """Prints a line that is not cut where the terminal ends, so that paths and commands can be copied."""
    console.print(text, soft_wrap=True)


def run_script(main: Callable[[list[str]], int]) -> NoReturn:
    """Runs a script's main function on the command line's arguments, and leaves with its exit code.

    What ``--plugin`` names is imported before.

    Wrong input and files that cannot be read or written (``ValueError``, ``OSError``) end as one sentence and
    code 2, a loss that is not finite as one sentence and code 1, Ctrl-C as code 130; ``--debug`` shows the
    traceback of each. Of several processes each tells its own error, with its number, and waits a moment for the
    others; those that are still at work when one has failed end with one sentence and code 1.
    """
    errors = make_console(stderr=True)
    argv = sys.argv[1:]
    _calm_messages(errors, debug="--debug" in argv)
    patience = 300.0  # seconds: process 0 may still have results to show
    try:
        import_plugins(argv)
        code = main(argv)
    except (Exception, KeyboardInterrupt) as error:
        patience = 10.0
        known = isinstance(error, ValueError | OSError | FloatingPointError | KeyboardInterrupt)
        lost = distributed.joined() and isinstance(error, jax.errors.JaxRuntimeError)
        if "--debug" in argv or not (known or lost):
            if not distributed.joined():
                raise
            traceback.print_exc()
        elif isinstance(error, KeyboardInterrupt):
            say(errors, "stopped")
        else:
            words = sentence(error)
            if lost:
                words = f"the devices stopped working together, as when another process has ended ({words})"
            number = distributed.process_number()
            which = f"process {number}: " if number else ""
            say(errors, f"[bold red]error:[/] [red]{escape(which + words)}[/]")
        code = _exit_code(error)
    distributed.leave(code, seconds=patience)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPT_EXIT_CODE
    return INPUT_EXIT_CODE if isinstance(error, ValueError | OSError) else NUMBERS_EXIT_CODE


def sentence(error: BaseException) -> str:
    """An error's own words; for one of the operating system, with the file that it names."""
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"there is no file {error.filename}; check the path"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
    if isinstance(error, jax.errors.JaxRuntimeError):
        return str(error).splitlines()[0][:200]
    return str(error) or type(error).__name__


def _calm_messages(errors: Console, *, debug: bool) -> None:
    """Warnings and notes of jaxrec in one line each, without the place in the code; chatter of libraries left out.

    When a checkpoint cannot be written, the threads of Orbax tell of it several times, and what they tell is raised
    besides; only ``debug`` shows it all.
    """

    def show(message: Warning | str, category: type[Warning], *place) -> None:
        if issubclass(category, UserWarning):
            say(errors, f"[yellow]warning:[/] {escape(str(message))}")

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno <= logging.INFO and distributed.process_number():
                return  # process 0 tells it
            word = "note" if record.levelno <= logging.INFO else record.levelname.lower()
            say(errors, f"[yellow]{word}:[/] {escape(record.getMessage())}")

    warnings.showwarning = show
    log = logging.getLogger("jaxrec")
    log.addHandler(Handler(logging.INFO))
    log.setLevel(logging.INFO)
    log.propagate = False
    if debug:
        return
    for library in ("absl", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    show_unraisable = sys.unraisablehook
    sys.unraisablehook = lambda found: _is_closed_loop(found.exc_value) or show_unraisable(found)


def _is_closed_loop(error: BaseException | None) -> bool:
    """Whether a write came to its end after the others had failed, and nobody waited for it any more."""
    return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"


def keep_compiled_programs() -> None:
    """Turns on jax's compilation cache in jaxrec's cache folder, unless jax has been given another one."""
    from jaxrec.data.catalog import cache_folder  # brings polars, which a benchmark does without

    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def script_path(name: str) -> str:
    """Another script beside the running one, as one types it here."""
    path = Path(sys.argv[0]).parent / name
    return str(path)


class DownloadBar:
    """Shows how far a download is, from ``progress(done, total)`` calls; nothing until the first one."""

    def __init__(self, console: Console, name: str):
        self._progress = Progress(
            TextColumn("downloading {task.description}"),
            BarColumn(bar_width=24),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._console, self._name, self._task = console, name, None

    def __call__(self, done: int, total: int | None) -> None:
        if self._task is None:
            if not self._console.is_terminal:
                say(self._console, f"downloading {self._name}")
            self._progress.start()
            self._task = self._progress.add_task(self._name, total=total)
        self._progress.update(self._task, completed=done, total=total)
        if total is not None and done >= total:
            self.close()

    def __enter__(self) -> "DownloadBar":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        """Takes the bar away; another call begins a new one."""
        self._progress.stop()
        self._task = None


__all__ = [
    "INTERRUPT_EXIT_CODE",
    "DownloadBar",
    "keep_compiled_programs",
    "make_console",
    "run_script",
    "say",
    "script_path",
    "sentence",
]
