"""Finds what excites each unit of an index that was built before this was stored."""

from dataclasses import replace
from pathlib import Path

from app.config import Settings
from app.indexing.verify import choose_version
from app.indexing.versions import find_weights_or_fail
from app.inference.served_weights import load_servable
from index import store
from index.building.file_list import FILE_LIST, read_file_list
from index.building.sampling import read_entry_square, scan_units
from index.building.unit_scan import UnitScan
from index.id_map import read_id_map
from index.manifest import FileChecksum, Manifest, StoreError, read_manifest, write_manifest
from index.sample import Pixels, read_sample
from index.units import UNITS_FILE, TopImages, write_units
from index.vectors import Ids, compute_file_sha256
from model.predict import Predictor
from storage.progress import Report


def add_units(settings: Settings, report: Report, name: str | None = None) -> bool:
    """Add to a version, by default the one in service, the images that excite each unit most.

    Returns whether anything was added. Raises StoreError, also for a version without a sample, and
    WeightsError.
    """
    root = settings.home.index
    with store.acquire_build_lock(root):
        name = choose_version(root, name)
        manifest = read_manifest(root / name)
        if UNITS_FILE in manifest.files:
            return False
        sample = read_sample(root / name, manifest)
        if sample is None:
            raise StoreError(f"Version {name} has no sample of images; run `flask index build`")
        weights = load_servable(find_weights_or_fail(settings.home, manifest))
        predictor = Predictor.from_weights(
            weights, settings.device, settings.runtime, settings.home.runtimes
        )
        top = scan_version(predictor, root / name, manifest, sample.ids, report)
        if top is None:
            raise StoreError(f"None of the photographs of version {name} can be read any more")
        try:
            write_units(root / name, top)
            list_file(root / name, manifest)
        except OSError as error:
            raise StoreError(f"{root / name} cannot be written: {error.strerror}") from error
    return True


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


def list_file(folder: Path, manifest: Manifest) -> None:
    """List the new file in a version's manifest. Raises OSError."""
    file = folder / UNITS_FILE
    sealed = FileChecksum(bytes=file.stat().st_size, sha256=compute_file_sha256(file))
    write_manifest(replace(manifest, files=manifest.files | {UNITS_FILE: sealed}), folder)
