"""The folder in which the processes of a server count together.

gunicorn's master process makes it and removes it, and adds up what a process that has ended leaves
there, so that workers may come and go and no count is lost. It imports no torch and no Flask.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from storage.files import lock_file

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus-client looks for the folder, when it is imported."""
PREFIX = "alexnet-metrics-"
SUMMED = ("counter", "histogram")
"""Kinds of metrics that outlive the process that counted them."""


def find_metrics_folder() -> Path | None:
    """Return the folder; None if this process counts for itself."""
    name = os.environ.get(VARIABLE)
    return Path(name) if name else None


def make_metrics_folder() -> Path:
    """Make the folder for this server's processes, and remove those of servers that were killed.

    To be called before prometheus-client is imported. Raises OSError.
    """
    remove_stale_folders(Path(tempfile.gettempdir()))
    folder = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")
    os.environ[VARIABLE] = folder
    return Path(folder)


def remove_metrics_folder() -> None:
    """Remove the folder, when the server ends."""
    if folder := find_metrics_folder():
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale_folders(parent: Path) -> None:
    """Remove this user's folders whose server no longer runs."""
    for folder in parent.glob(f"{PREFIX}*"):
        found = re.fullmatch(rf"{PREFIX}(\d+)-\w+", folder.name)
        with suppress(OSError):
            stale = found and not Path(f"/proc/{found[1]}").exists()
            if stale and folder.stat().st_uid == os.getuid() and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def lock_metrics(folder: Path) -> Iterator[None]:
    """Keep the folder's files from being added up while they are read."""
    with lock_file(folder / "lock", keep=True):
        yield


def retire_process(pid: int) -> None:
    """Add what an ended process has counted to what earlier ones had, and remove its files."""
    from prometheus_client.mmap_dict import MmapedDict
    from prometheus_client.multiprocess import mark_process_dead

    folder = find_metrics_folder()
    if folder is None or not folder.is_dir():
        return
    with lock_metrics(folder):
        mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
        for kind in SUMMED:
            left = folder / f"{kind}_{pid}.db"
            if left.exists():
                total = MmapedDict(str(folder / f"{kind}_0.db"))  # type: ignore[no-untyped-call]
                for key, value, *_ in MmapedDict.read_all_values_from_file(str(left)):  # type: ignore[no-untyped-call]
                    before, _ = total.read_value(key)  # type: ignore[no-untyped-call]
                    total.write_value(key, before + value, 0.0)  # type: ignore[no-untyped-call]
                total.close()  # type: ignore[no-untyped-call]
                left.unlink()
