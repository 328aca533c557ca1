"""Builds an index from beginning to end: weights → files → features → a published version."""

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from app.config import Settings
from app.database.images import find_version
from app.database.ingest import (
    Registration,
    mend_version_classes,
    record_version,
    register_images,
)
from app.database.session import Sessions
from app.indexing.looks import IndexedPhotographs, write_looks
from app.indexing.versions import (
    discard_versions,
    drop_milvus_collections,
    find_version_built_as,
    find_weights_or_fail,
    prepare_database,
    publish_found_version,
    read_manifest_in_use,
)
from app.inference.served_weights import load_servable, name_weights_file, read_served_identity
from index import store
from index.building.checkpoint import delete_checkpoints, delete_published_checkpoints
from index.building.distributed import choose_process_device, is_first
from index.building.file_list import FILE_LIST, UnreadableFile, write_file_list
from index.building.near_duplicates import measure_near_duplicate_distance
from index.building.pipeline import GatheredFeatures, gather_features
from index.building.sampling import VersionImages, make_sample, read_earlier_sample
from index.building.unit_scan import UnitScan
from index.building.writer import BaseVersion
from index.draft import VersionDraft, draft_version
from index.engines import factory as engines
from index.engines.factory import choose_kind
from index.engines.protocol import VersionData
from index.id_map import IdMap, read_id_map, write_id_map
from index.manifest import PREPROCESSINGS, StoreError
from index.sample import write_sample
from index.store import Manifest
from index.units import read_units, write_units
from model.dataset.folder import (
    FolderError,
    ImageFolder,
    digest_listing,
    scan_folder,
    scan_photographs,
)
from model.predict import Predictor
from model.runtime.names import TORCH
from model.runtime.prepared import open_predictor
from model.weights.checkpoint import Weights
from storage.activity import record_activity
from storage.home import Home
from storage.parallel import is_distributed
from storage.pretrained import find_training_folder
from storage.progress import Report

MAX_HELD_OUT_IMAGES = 256
"""Validation images that stand for uploads where an engine's search effort is chosen."""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What index to build. With kind or dtype `auto`, size and memory decide.

    weights: the weights file; None: the selected one. data: the folder of photographs to index;
    None: the one that the weights were trained on.
    """

    weights: Path | None = None
    data: Path | None = None
    spec: engines.IndexSpec = field(default_factory=lambda: engines.IndexSpec(kind="auto"))
    dtype: str = "auto"


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """The index version that was built; `gathered` is None if there was one already.

    served: whether it is in service (`build_index`). seconds: time taken by the features, decoding
    included. notes: what was chosen, and why.
    """

    manifest: Manifest
    served: bool = True
    gathered: GatheredFeatures | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def unreadable(self) -> list[UnreadableFile]:
        """The files that were left out."""
        return self.gathered.unreadable if self.gathered else []


def build_index(
    settings: Settings,
    sessions: Sessions,
    report: Report,
    options: BuildOptions | None = None,
    *,
    if_needed: bool = False,
) -> BuildResult | None:
    """Index the training set of the selected weights, or other photographs or with other weights.

    The version is put into service, and with it the weights. One that was asked for with a weights
    file is so only if these weights are in service already; else it is served as soon as somebody
    switches to them (app/inference/switch_weights.py).

    With `if_needed`, build nothing if some version was built with these weights from the files as
    they are, but publish it if it is not in service. Until then the version in service stays; if
    the build is interrupted, the next one resumes from what was computed. Of several processes only
    the first gets a result.

    Raises WeightsError, FolderError, StoreError, SearchError and DatabaseError.
    """
    options = options or BuildOptions()
    build = start_build(settings, sessions, report, options)
    prepare_database(settings)
    if if_needed and (found := find_version_built_as(build.matches, settings, sessions)):
        served = build.should_publish()
        if served:
            publish_found_version(settings.home.index, found)
        build.settle(found)
        return BuildResult(manifest=found, served=served)
    return run_build(build, options, None)


def update_index(settings: Settings, sessions: Sessions, report: Report) -> BuildResult | None:
    """Bring the version in service up to date with the files, with its weights, kind and recall.

    New images are added, deleted ones removed, changed ones read again; nothing else is computed.
    Raises as `build_index`, and StoreError if there is no complete index or its weights are lost.
    """
    prepare_database(settings)
    served = read_manifest_in_use(settings, sessions)
    if served is None:
        raise StoreError("There is no complete index to update; run `flask index build`")
    file = find_weights_or_fail(settings.home, served)
    if not Path(served.data).is_dir():
        raise FolderError(
            f"{served.data} does not exist; if it was moved, `flask index relocate DIR` points the "
            "index to its new place"
        )
    options = BuildOptions(weights=file, data=Path(served.data))
    build = start_build(settings, sessions, report, options)
    if build.matches(served):
        build.settle(served)
        return BuildResult(manifest=served)
    return run_build(build, BuildOptions(dtype=served.dtype), served)


def run_build(
    build: "IndexBuild", options: BuildOptions, earlier: Manifest | None
) -> BuildResult | None:
    """Run a build; meanwhile the pages show what it is doing, in the first of several processes."""
    if not is_first():
        return build.run(options, earlier)
    with record_activity(build.settings.home.index_activity, build.report) as report:
        return replace(build, report=report).run(options, earlier)


@dataclass(frozen=True)
class IndexBuild:
    """One build; `run` calls the other methods step by step.

    file: the weights file, all links followed. selected: whether that is because it was selected,
    not because somebody named it.
    """

    settings: Settings
    sessions: Sessions
    report: Report
    file: Path
    weights: Weights
    folder: ImageFolder
    selected: bool

    def run(self, options: BuildOptions, earlier: Manifest | None) -> BuildResult | None:
        """Compute the features, write the version, record it in the database and publish it.

        earlier: the version to start from, of an update. Of several processes all compute, and
        the first does the rest.
        """
        reused = earlier or self.find_reusable_version(options.dtype)
        if reused:
            options = replace(options, dtype=reused.dtype)
        if not is_first():
            self.gather(settle_options(options, self.settings, self.folder, earlier)[0], None)
            return None
        with store.acquire_build_lock(self.root) as abandoned:
            drop_milvus_collections(self.settings, abandoned)
            options, notes = settle_options(options, self.settings, self.folder, earlier)
            listing = self.listing  # of the files as they are before any is read
            base = BaseVersion.read(self.root / reused.name, reused) if reused else None
            start = time.perf_counter()
            gathered = self.gather(options, base)
            seconds = time.perf_counter() - start
            assert gathered is not None
            if not gathered.entries:
                raise StoreError("No image could be read, so there is nothing to index")
            images = register_images(
                self.sessions, self.folder, gathered.photographs, gathered.entries
            )
            near = reused.near if reused else self.measure_near_duplicate_distance(gathered)
            with draft_version(self.root) as draft:
                engine = self.write_version(draft, options, gathered, images, earlier, reused, near)
                manifest = draft.commit(
                    (self.root / reused.name, reused) if reused else None,
                    weights=self.weights.identity,
                    runtime=self.predictor.runtime.name,
                    weights_file=name_weights_file(self.settings.home, self.file),
                    preprocessing=PREPROCESSINGS[self.weights.config.resize],
                    data=str(self.folder.root),
                    images=len(images.ids),
                    vectors=len(np.unique(gathered.rows)),
                    unreadable=len(gathered.unreadable),
                    listing=listing,
                    dtype=options.dtype,
                    kind=engine.kind,
                    target=options.spec.target,
                    parameters=engine.parameters,
                    recall=engine.recall,
                    near=near,
                )
            served = self.publish(manifest, images)
            return BuildResult(
                manifest=manifest,
                served=served,
                gathered=gathered,
                seconds=seconds,
                notes=notes + engine.notes,
            )

    def find_reusable_version(self, dtype: str) -> Manifest | None:
        """Find the newest intact version whose vectors are what these weights give for the files.

        dtype: that it must be stored as; `auto` for any. The database need not list it.
        """
        for name in reversed(store.list_versions(self.root)):
            with suppress(StoreError):
                found = store.read_manifest(self.root / name)
                known = found.weights, found.data, found.preprocessing
                wanted = PREPROCESSINGS[self.weights.config.resize]
                if known != (self.weights.identity, str(self.folder.root), wanted):
                    continue
                if dtype in ("auto", found.dtype):
                    return store.check_version(self.root, name)
        return None

    def gather(self, options: BuildOptions, base: BaseVersion | None) -> GatheredFeatures | None:
        """Write the features of all photographs to disk; None in all processes but the first."""
        return gather_features(
            self.predictor,
            self.folder.root,
            self.folder.train,
            self.root,
            dtype=options.dtype,
            kind=options.spec.kind,
            base=base,
            report=self.report,
            sample=self.settings.sample_images,
        )

    def write_version(
        self,
        draft: VersionDraft,
        options: BuildOptions,
        gathered: GatheredFeatures,
        images: Registration,
        earlier: Manifest | None,
        reused: Manifest | None,
        near: float,
    ) -> engines.BuiltEngine:
        """Write everything but the manifest into a version's folder.

        earlier: the version that is updated. reused: the one whose vectors are. near: the distance
        up to which two images count as near-duplicates.
        """
        for stored in gathered.shards:
            draft.link_shard(stored.path, stored.shard)
        vectors = draft.open_vectors(options.dtype)
        order = np.argsort(images.ids)
        id_map = images.ids[order], gathered.rows[order], images.classes[order]
        write_id_map(draft.folder, *id_map)
        write_file_list(draft.folder / FILE_LIST, gathered.entries, gathered.rows)
        version_images = VersionImages(
            root=self.folder.root,
            ids=images.ids[order],
            entries=[gathered.entries[i] for i in order.tolist()],
            rows=gathered.rows[order],
        )
        sample = None
        # Its images are known by the database's ids.
        if reused and find_version(self.sessions, reused.name):
            sample = read_earlier_sample(self.root / reused.name)
        units = UnitScan.resume(
            self.predictor,
            read_units(self.root / reused.name, reused) if reused and sample else None,
            version_images.ids,
        )
        columns = make_sample(
            self.predictor,
            version_images,
            vectors,
            sample,
            self.report,
            self.settings.sample_images,
            units,
        )
        write_sample(draft.folder, columns)
        if (top := units.finish(columns["ids"])) is not None:
            write_units(draft.folder, top)
        indexed = IndexedPhotographs(
            folder=self.folder,
            vectors=vectors,
            id_map=IdMap(*id_map),
            entries=gathered.entries,
            rows=gathered.rows,
            near=near,
        )
        validation = write_looks(
            draft.folder,
            self.predictor,
            indexed,
            (columns["ids"], columns["small"]),
            (self.root / reused.name, reused) if reused else None,
            self.sessions,
            self.report,
        )
        return engines.build_engine(
            options.spec,
            VersionData(
                name=draft.name,
                folder=draft.folder,
                vectors=vectors,
                id_map=indexed.id_map,
                device=self.settings.search_device,
            ),
            self.report,
            (self.root / earlier.name, earlier) if earlier else None,
            validation.features[:MAX_HELD_OUT_IMAGES] if validation else None,
        )

    def measure_near_duplicate_distance(self, gathered: GatheredFeatures) -> float:
        """Measure the distance up to which two images count as near-duplicates."""
        paths = [self.folder.root / entry.path for entry in gathered.entries]
        return measure_near_duplicate_distance(self.predictor, paths)

    def publish(self, manifest: Manifest, images: Registration) -> bool:
        """Record the version in the database, put it into service, and delete what is too old.

        The database comes first, so that every process that sees the new version finds its images.
        Return whether it is in service.
        """
        served = self.should_publish()
        try:
            record_version(self.sessions, manifest, images)
            if served:
                store.publish_version(self.root, manifest.name)
        except BaseException:
            store.delete_version(self.root, manifest.name)
            raise
        delete_checkpoints(self.root)
        discard_versions(self.settings, self.sessions, self.settings.index_kept)
        return served

    def should_publish(self) -> bool:
        """Whether the version is for serving: its weights were selected, or serve at this moment.

        They may have been switched since the build began.
        """
        return self.selected or read_served_identity(self.settings.home) == self.weights.identity

    def matches(self, manifest: Manifest) -> bool:
        """Whether a version was built with these weights from the files as they are."""
        current = (self.weights.identity, str(self.folder.root), self.listing)
        return (manifest.weights, manifest.data, manifest.listing) == current

    def settle(self, served: Manifest) -> None:
        """Mend the database's classes of a version that is up to date, and remove remains.

        Remains are what a build left that died after publishing; they stay while another one is
        running. Raises StoreError and DatabaseError.
        """
        if not is_first():
            return
        id_map = read_id_map(self.root / served.name, served)
        mend_version_classes(self.sessions, served.name, id_map.ids, id_map.classes)
        with suppress(StoreError), store.acquire_build_lock(self.root) as abandoned:
            drop_milvus_collections(self.settings, abandoned)
            delete_published_checkpoints(self.root, self.root / served.name)
            discard_versions(self.settings, self.sessions, self.settings.index_kept)

    @property
    def root(self) -> Path:
        """The folder of the index."""
        return self.settings.home.index

    @cached_property
    def listing(self) -> str:
        """The digest of the training files' names, sizes and times."""
        return digest_listing(self.folder.root, self.folder.train)

    @cached_property
    def predictor(self) -> Predictor:
        """The network, on this process's device, and as the server will compute it.

        Of several processes each could measure another runtime as the fastest, so all take torch.
        """
        settings, weights = self.settings, self.weights
        if is_distributed():
            return Predictor.from_weights(weights, choose_process_device(settings.device), TORCH)
        device, runtime, folder = settings.device, settings.runtime, settings.home.runtimes
        found = open_predictor(self.file, device, runtime, folder, lambda _file: weights)
        if found.identity == weights.identity:
            return found
        return Predictor.from_weights(weights, device, runtime)  # the file was replaced meanwhile


def settle_options(
    options: BuildOptions, settings: Settings, folder: ImageFolder, earlier: Manifest | None
) -> tuple[BuildOptions, list[str]]:
    """Decide what was left open: by the earlier version, INDEX_URL, or size and memory.

    Also return notes that say what was decided, and why. Raises StoreError.
    """
    wanted, notes = options.spec, []
    if earlier is not None:
        wanted = replace(wanted, kind=earlier.kind, target=earlier.target)
    if wanted.kind == "auto" and settings.index_url:
        wanted, notes = replace(wanted, kind="milvus"), ["Kind milvus: INDEX_URL names a server."]
    if wanted.kind == "auto":
        choice = choose_kind(len(folder.train))
        wanted, notes = replace(wanted, kind=choice.kind), [f"Kind {choice.kind}: {choice.reason}"]
    if wanted.kind == "milvus" and not settings.index_url:
        raise StoreError("An index of kind milvus needs INDEX_URL, the address of a Milvus server")
    dtype = options.dtype
    if dtype == "auto":
        dtype = "float32" if wanted.kind == "exact" else "float16"
    return replace(options, spec=wanted, dtype=dtype), notes


def start_build(
    settings: Settings, sessions: Sessions, report: Report, options: BuildOptions
) -> IndexBuild:
    """Read the weights and list the photographs. Raises WeightsError and FolderError."""
    # Resolved before it is read: the link to the selected weights may be switched.
    file = (options.weights or settings.home.weights).resolve()
    weights = load_servable(file)
    if options.data is not None:
        folder = scan_photographs(options.data)
    elif root := find_training_folder(weights.provenance.data, settings.home):
        folder = scan_training_folder(root)
    else:
        folder = scan_indexed_folder(settings.home, weights)
    selected = options.weights is None
    return IndexBuild(settings, sessions, report, file, weights, folder, selected)


def scan_training_folder(root: Path) -> ImageFolder:
    """Scan the folder that the weights were trained on. Raises FolderError."""
    try:
        return scan_folder(root, val_may_lack_classes=True)
    except FolderError as error:
        raise FolderError(
            f"The folder that the weights were trained on cannot be indexed: {error}. Put it back, "
            "point an index of it to its new place with `flask index relocate DIR`, index another "
            "with `flask index build --data DIR`, or train on another with `python "
            "training/run.py --data DIR`"
        ) from error


def scan_indexed_folder(home: Home, weights: Weights) -> ImageFolder:
    """Scan the folder of the index in service, for weights that were trained elsewhere.

    Raises FolderError if there is none.
    """
    with suppress(StoreError):
        if name := store.read_current_version(home.index):
            return scan_photographs(Path(store.read_manifest(home.index / name).data))
    raise FolderError(
        f"The selected weights were not trained on a folder here (trained on: "
        f"{weights.provenance.data}); name the photographs to index with `flask index build --data "
        "DIR`"
    )
