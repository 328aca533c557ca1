"""Photographs that change between builds, and weights that say they were made of them."""

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from model.dataset.folder import digest_listing, scan_folder
from model.network.alexnet import AlexNet
from model.network.config import AlexNetConfig
from model.weights.checkpoint import Pca, Weights, load_weights, save_weights
from model.weights.header import Provenance


@dataclass
class Photographs:
    """A folder of photographs that changes. `sources` are what new ones are cut from."""

    root: Path
    sources: list[Path]
    random: np.random.Generator
    made: int = field(default=0)

    @classmethod
    def of(
        cls, source: Path, root: Path, images: int, random: np.random.Generator, classes: int = 6
    ) -> "Photographs":
        """Copy some of a folder's photographs, of up to `classes` classes."""
        folder = scan_folder(source)
        for split, all_ in (("train", folder.train), ("val", folder.val)):
            for index in range(min(classes, len(folder.classes))):
                own = [p.path for p in all_ if p.class_index == index]
                many = max(2, images // min(classes, len(folder.classes)))
                for path in own[: many if split == "train" else 1]:
                    (root / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(folder.root / path, root / path)
        sources = [folder.root / photograph.path for photograph in folder.val]
        return cls(root=root, sources=sources, random=random)

    @property
    def listing(self) -> str:
        """The digest of the files as they are."""
        return digest_listing(self.root, scan_folder(self.root).train)

    @property
    def count(self) -> int:
        """How many there are; all can be read."""
        return len(scan_folder(self.root).train)

    def change(self) -> None:
        """Add, change, copy, touch and delete photographs; their number stays about the same."""
        paths = [self.root / photograph.path for photograph in scan_folder(self.root).train]
        chosen = [paths[i] for i in self.random.permutation(len(paths)).tolist()]
        many = max(1, len(paths) // 6)
        last, touched, *rest = chosen
        for file in rest[: many + 1]:
            if len(list(file.parent.iterdir())) > 1:
                file.unlink()
        for file in rest[many + 1 : 2 * many + 1]:
            self.cut(file)
        for file in rest[-many:]:
            self.made += 1
            self.cut(file.with_name(f"new-{self.made}.jpg"))
        shutil.copy(last, last.with_name(f"copy-{self.made}.jpg"))
        touched.touch()

    def cut(self, file: Path) -> None:
        """Write a photograph that there never was."""
        image = Image.open(self.sources[self.random.integers(len(self.sources))]).convert("RGB")
        side = int(min(image.size) * self.random.uniform(0.5, 0.9))
        left, top = (int(self.random.integers(0, length - side)) for length in image.size)
        image.crop((left, top, left + side, top + side)).resize((200, 200)).save(file, quality=92)


def write_weights(given: Path | None, photographs: Path, file: Path) -> Path:
    """Weights that say they were made of that folder."""
    if given:
        old = load_weights(given)
        save_weights(replace(old, provenance=replace(old.provenance, data=str(photographs))), file)
        return file
    folder = scan_folder(photographs)
    torch.manual_seed(1)
    config = AlexNetConfig(classes=len(folder.classes), init="he", input_scale=60)
    provenance = Provenance(
        data=str(photographs),
        images=len(folder.train),
        epochs=0,
        preset="small",
        top1_error=None,
        top5_error=None,
        commit="unknown",
        created="2026-01-01T00:00:00+00:00",
    )
    weights = Weights(
        config=config,
        classes=folder.classes,
        mean=torch.full((3, 256, 256), 120.0),
        pca=Pca(torch.ones(3), torch.eye(3)),
        provenance=provenance,
        state=AlexNet(config).state_dict(),
    )
    save_weights(weights, file)
    return file
