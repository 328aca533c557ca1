"""The build of an index from beginning to end: weights → files → features → a version served."""

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from app.config import Settings
from app.database.ingest import Registration, record_version, register_images
from app.database.session import Sessions
from app.indexing.versions import (
    discard_versions,
    drop_collections,
    manifest_in_use,
    prepare_database,
)
from app.inference.loader import check_servable
from index import store
from index.building.checkpoint import delete_checkpoints, delete_published_checkpoints
from index.building.distributed import build_device, is_first
from index.building.file_list import FILE_LIST as LISTING
from index.building.file_list import UnreadableFile, write_file_list
from index.building.near_duplicates import near_duplicate_distance
from index.building.pipeline import GatheredFeatures, compute_features, gather_features
from index.building.sampling import VersionImages, make_sample, read_earlier_sample
from index.building.writer import BaseVersion
from index.engines import factory as engines
from index.engines.factory import choose_kind
from index.engines.protocol import VersionData
from index.id_map import IdMap, write_id_map
from index.manifest import StoreError
from index.sample import write_sample
from index.store import Draft, Manifest
from index.vectors import Floats, Ids
from model.checkpoint import Weights, load_weights
from model.dataset import FolderError, ImageFolder, digest_listing, scan_folder
from model.predict import Predictor
from storage.progress import Report

HELD_OUT = 256
"""Validation photographs by which a kind's effort is chosen."""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What is asked of an index. kind and dtype may be `auto`: then size and memory decide."""

    wanted: engines.IndexSpec = field(default_factory=lambda: engines.IndexSpec(kind="auto"))
    dtype: str = "auto"


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """An index version that is served now, or was before when `gathered` is None.

    seconds: what the features took, decoding included. said: what was chosen, and why.
    """

    manifest: Manifest
    gathered: GatheredFeatures | None = None
    seconds: float = 0.0
    said: list[str] = field(default_factory=list)

    @property
    def unreadable(self) -> list[UnreadableFile]:
        """The files that were left out."""
        return self.gathered.unreadable if self.gathered else []


def build_index(
    settings: Settings,
    sessions: Sessions,
    step: Report,
    asked: BuildOptions | None = None,
    *,
    if_needed: bool = False,
) -> BuildResult | None:
    """Index the training set of the weights in use, and serve that from now on.

    With `if_needed` nothing is done when the index served was made by these weights from the
    files as they are. Whatever happens before the switch, what was served before still is; what
    was computed is kept, and the next build goes on from there. Of several processes the first
    alone gets a result.

    Raises WeightsError, FolderError, StoreError, SearchError and DatabaseError.
    """
    weights = check_servable(load_weights(settings.home.weights))
    folder = training_folder(weights)
    job = IndexBuild(settings, sessions, step, weights, folder)
    prepare_database(settings)
    if if_needed and (served := manifest_in_use(settings, sessions)) and job.fits(served):
        job.tidy(served)
        return BuildResult(manifest=served)
    return job.run(asked or BuildOptions(), None)


def update_index(settings: Settings, sessions: Sessions, step: Report) -> BuildResult | None:
    """Bring the index served up to the files as they are, with its kind and its recall.

    New images are added, vanished ones dropped, changed ones read again; nothing else is computed.
    Raises as `build`, and StoreError where there is no whole index of these weights to go on from.
    """
    weights = check_servable(load_weights(settings.home.weights))
    folder = training_folder(weights)
    prepare_database(settings)
    served = manifest_in_use(settings, sessions)
    if served is None:
        raise StoreError("There is no whole index to update; run `flask index build`")
    if (served.weights, served.data) != (weights.identity, str(folder.root)):
        raise StoreError(
            f"The index is of other weights or of another folder ({served.data}) than those in "
            "use; run `flask index build`"
        )
    job = IndexBuild(settings, sessions, step, weights, folder)
    if job.fits(served):
        job.tidy(served)
        return BuildResult(manifest=served)
    return job.run(BuildOptions(dtype=served.dtype), served)


@dataclass(frozen=True)
class IndexBuild:
    """What one build works with."""

    settings: Settings
    sessions: Sessions
    step: Report
    weights: Weights
    folder: ImageFolder

    @property
    def root(self) -> Path:
        """The folder of the index."""
        return self.settings.home.index

    @cached_property
    def listing(self) -> str:
        """The digest of the training files as they were before any was read."""
        return digest_listing(self.folder.root, self.folder.train)

    def fits(self, manifest: Manifest) -> bool:
        """Whether an index was made by these weights from the files as they are."""
        wanted = (self.weights.identity, str(self.folder.root), self.listing)
        return (manifest.weights, manifest.data, manifest.listing) == wanted

    def tidy(self, served: Manifest) -> None:
        """Remove what a build left that died after its switch, unless another is at work."""
        if not is_first():
            return
        with suppress(StoreError), store.build_lock(self.root) as dead:
            drop_collections(self.settings, dead)
            delete_published_checkpoints(self.root, self.root / served.name)
            discard_versions(self.settings, self.sessions, self.settings.index_kept)

    def run(self, asked: BuildOptions, before: Manifest | None) -> BuildResult | None:
        """Do it; the first process alone holds the right to build, and publishes."""
        if not is_first():
            self.gathered(settle_options(asked, self.settings, self.folder, before)[0], None)
            return None
        with store.build_lock(self.root) as dead:
            drop_collections(self.settings, dead)
            asked, said = settle_options(asked, self.settings, self.folder, before)
            base = BaseVersion.read(self.root / before.name, before) if before else None
            listing, began = self.listing, time.perf_counter()
            gathered = self.gathered(asked, base)
            assert gathered is not None
            seconds = time.perf_counter() - began
            manifest, more = self.publish(asked, listing, gathered, before)
            return BuildResult(
                manifest=manifest, gathered=gathered, seconds=seconds, said=said + more
            )

    @cached_property
    def predictor(self) -> Predictor:
        """The network, where this process computes."""
        return Predictor.from_weights(self.weights, build_device(self.settings.device))

    def gathered(self, asked: BuildOptions, base: BaseVersion | None) -> GatheredFeatures | None:
        """The features of all photographs, on disk; None in all processes but the first."""
        return gather_features(
            self.predictor,
            self.folder.root,
            self.folder.train,
            self.root,
            dtype=asked.dtype,
            kind=asked.wanted.kind,
            base=base,
            report=self.step,
        )

    def publish(
        self, asked: BuildOptions, listing: str, gathered: GatheredFeatures, before: Manifest | None
    ) -> tuple[Manifest, list[str]]:
        """Write the version, enter it in the database, switch to it, and delete what is too old.

        The database comes first, so that whoever sees the new version finds its images.
        """
        if not gathered.entries:
            raise StoreError("No image could be read, so there is nothing to index")
        entered = register_images(
            self.sessions, self.folder, gathered.photographs, gathered.entries
        )
        with store.draft_version(self.root) as draft:
            made = self.fill(draft, asked, gathered, entered, before)
            manifest = draft.commit(
                weights=self.weights.identity,
                data=str(self.folder.root),
                images=len(entered.ids),
                vectors=len(np.unique(gathered.rows)),
                unreadable=len(gathered.unreadable),
                listing=listing,
                dtype=asked.dtype,
                kind=made.kind,
                target=asked.wanted.target,
                parameters=made.parameters,
                recall=made.recall,
                near=self.near(gathered, before),
            )
        try:
            record_version(self.sessions, manifest, entered.dataset_id, np.sort(entered.ids))
            store.publish(self.root, manifest.name)
        except BaseException:
            store.delete_version(self.root, manifest.name)
            raise
        delete_checkpoints(self.root)
        discard_versions(self.settings, self.sessions, self.settings.index_kept)
        return manifest, made.notes

    def fill(
        self,
        draft: Draft,
        asked: BuildOptions,
        gathered: GatheredFeatures,
        entered: Registration,
        before: Manifest | None,
    ) -> engines.BuiltEngine:
        """Write everything but the manifest into a version's folder."""
        for stored in gathered.shards:
            draft.link_shard(stored.path, stored.shard)
        order = np.argsort(entered.ids)
        lists = entered.ids[order], gathered.rows[order], entered.classes[order]
        write_id_map(draft.folder, *lists)
        write_file_list(draft.folder / LISTING, gathered.entries, gathered.rows)
        self.add_sample(draft, asked.dtype, gathered, order, entered.ids, before)
        return engines.build_engine(
            asked.wanted,
            VersionData(
                name=draft.name,
                folder=draft.folder,
                vectors=draft.vectors(asked.dtype),
                id_map=IdMap(*lists),
                device=self.settings.search_device,
            ),
            self.step,
            (self.root / before.name, before) if before else None,
            self.held_out() if asked.wanted.kind != "exact" else None,
        )

    def add_sample(
        self,
        draft: Draft,
        dtype: str,
        gathered: GatheredFeatures,
        order: Ids,
        ids: Ids,
        before: Manifest | None,
    ) -> None:
        """Write what the pages show of a sample of the images; order: int64 [M], by their ids."""
        images = VersionImages(
            root=self.folder.root,
            ids=ids[order],
            entries=[gathered.entries[i] for i in order.tolist()],
            rows=gathered.rows[order],
        )
        known = read_earlier_sample(self.root / before.name) if before else None
        vectors = draft.vectors(dtype)
        columns = make_sample(self.predictor, images, vectors, known, self.step)
        write_sample(draft.folder, columns)

    def held_out(self) -> Floats:
        """Features of some validation photographs, which stand for uploads: float32 [N, 4096]."""
        chosen = np.random.default_rng(2012).permutation(len(self.folder.val))[:HELD_OUT]
        files = [self.folder.root / self.folder.val[i].path for i in np.sort(chosen)]
        step = self.step("Looking at validation images", len(files))
        items = list(enumerate(files))
        return compute_features(self.predictor, items, on_progress=step).features

    def near(self, gathered: GatheredFeatures, before: Manifest | None) -> float:
        """The distance of near-duplicates: the earlier version's, or measured."""
        if before is not None:
            return before.near
        paths = [self.folder.root / entry.path for entry in gathered.entries]
        return near_duplicate_distance(self.predictor, paths)


def settle_options(
    asked: BuildOptions, settings: Settings, folder: ImageFolder, before: Manifest | None
) -> tuple[BuildOptions, list[str]]:
    """Settle what was left open: by the version before, by Milvus' address, by size and memory.

    Gives what there is to say of it too.
    """
    wanted, said = asked.wanted, []
    if before is not None:
        wanted = replace(wanted, kind=before.kind, target=before.target)
    if wanted.kind == "auto" and settings.index_url:
        wanted, said = replace(wanted, kind="milvus"), ["Kind milvus: INDEX_URL names a server."]
    if wanted.kind == "auto":
        choice = choose_kind(len(folder.train))
        wanted, said = replace(wanted, kind=choice.kind), [f"Kind {choice.kind}: {choice.reason}"]
    if wanted.kind == "milvus" and not settings.index_url:
        raise StoreError("An index of kind milvus needs INDEX_URL, the address of a Milvus server")
    dtype = asked.dtype
    if dtype == "auto":
        dtype = "float32" if wanted.kind == "exact" else "float16"
    return replace(asked, wanted=wanted, dtype=dtype), said


def training_folder(weights: Weights) -> ImageFolder:
    """The photographs the weights were trained on. Raises FolderError."""
    try:
        return scan_folder(Path(weights.provenance.data))
    except FolderError as error:
        raise FolderError(
            f"The weights were trained on a folder that cannot be indexed: {error}. Put it back, "
            "or train on another with `python training/run.py --data DIR`"
        ) from error
