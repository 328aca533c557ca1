"""Finds what excites each unit of an index that was built before this was stored."""

import shutil
from pathlib import Path

from app.config import Settings
from app.indexing.verify import choose_version
from app.indexing.versions import open_version_predictor
from index import store
from index.building.file_list import FILE_LIST, read_file_list
from index.building.sampling import read_entry_square, scan_units
from index.building.unit_scan import UnitScan
from index.draft import add_files
from index.id_map import read_id_map
from index.manifest import Manifest, StoreError, read_manifest
from index.sample import Pixels, read_sample
from index.units import UNITS_FILE, TopImages, write_units
from index.vectors import Ids
from model.predict import Predictor
from storage.progress import Report


def add_units(settings: Settings, report: Report, name: str | None = None) -> list[str]:
    """Add to a version, by default the one in service, the images that excite each unit most.

    Returns the names of the files that were added. Raises StoreError, also for a version without a
    sample, and WeightsError.
    """
    root = settings.home.index
    with store.acquire_build_lock(root):
        name = choose_version(root, name)
        manifest = read_manifest(root / name)
        if UNITS_FILE in manifest.files:
            return []
        sample = read_sample(root / name, manifest)
        if sample is None:
            raise StoreError(f"Version {name} has no sample of images; run `flask index build`")
        predictor = open_version_predictor(settings, manifest)
        top = scan_version(predictor, root / name, manifest, sample.ids, report)
        if top is None:
            raise StoreError(f"None of the photographs of version {name} can be read any more")
        # A name that the next build cleans up if this one dies.
        part = root / f".{name}"
        part.mkdir()
        try:
            write_units(part, top)
            return add_files(root / name, manifest, part)
        except OSError as error:
            raise StoreError(f"{root / name} cannot be written: {error.strerror}") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)


def scan_version(
    predictor: Predictor, folder: Path, manifest: Manifest, images: Ids, report: Report
) -> TopImages | None:
    """Search these images of a version; None if none can be read. Raises StoreError."""
    entries, rows = read_file_list(folder / FILE_LIST)
    known = read_id_map(folder, manifest)
    # Two photographs with the same pixels have one row: either file will do.
    by_row = {row: entry for entry, row in zip(entries, rows.tolist(), strict=True)}
    entry_of = {
        image: by_row[row]
        for image, row in zip(known.ids.tolist(), known.rows.tolist(), strict=True)
    }
    scan, resize = UnitScan(predictor), predictor.config.resize

    def read(image: int) -> Pixels | None:
        return read_entry_square(Path(manifest.data), entry_of[image], resize)

    scan_units(scan, images, read, report)
    return scan.finish(images)
