"""conv1's kernels: their colour selectivity by GPU, and the patches that activate them most."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flask import abort, url_for

from app import context
from app.database.images import CatalogueImage, find_images
from app.inference.state import LabelsOnly, NotReady
from app.views.layers import activations
from index.sample import ImageSample
from model.predict import Predictor
from model.visualization.kernels import (
    KERNELS_PER_ROW,
    SelectivityContrast,
    compare_selectivities,
    compute_colour_selectivity,
    compute_low_frequency_share,
    split_towers,
)

KERNEL_PIXELS, KERNEL_STEP = 44, 48
"""Size of a kernel in its GPU's picture, and the distance from one to the next."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A kernel of conv1.

    number: from 1, through both GPUs, like its feature map. rank: by colour selectivity among the
    kernels of its GPU, 1 being the most selective. row, column: its position in its GPU's picture.
    """

    number: int
    gpu: int
    selectivity: float
    rank: int
    row: int
    column: int


@dataclass(frozen=True, kw_only=True)
class KernelBlock:
    """The kernels of one GPU and the picture of all of them.

    selectivity: their mean. low_frequency: the share of their energy at low frequencies.
    """

    gpu: int
    kernels: Sequence[Kernel]
    selectivity: float
    low_frequency: float
    url: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class KernelPatch:
    """A position in a training image that activates a kernel: conv1's response before the ReLU."""

    image: int
    response: float
    row: int
    column: int


@dataclass(frozen=True, kw_only=True)
class KernelPatches:
    """The training patches that activate a kernel most, strongest first, and their images by id.

    sprite: the URL of all patches side by side. count, whole: how many images were searched, and
    whether those are all that are indexed.
    """

    patches: list[KernelPatch]
    images: dict[int, CatalogueImage]
    sprite: str
    count: int
    whole: bool


def list_kernels(predictor: Predictor) -> list[Kernel]:
    """List the kernels of a network's conv1, in order."""
    kernels: list[Kernel] = []
    for gpu, part in enumerate(split_towers(predictor.conv1, predictor.config.towers), 1):
        values = compute_colour_selectivity(part)
        ranks = np.argsort(np.argsort(-values, kind="stable")) + 1
        kernels += [
            Kernel(
                number=len(kernels) + 1 + index,
                gpu=gpu,
                selectivity=float(value),
                rank=int(rank),
                row=index // KERNELS_PER_ROW,
                column=index % KERNELS_PER_ROW,
            )
            for index, (value, rank) in enumerate(zip(values, ranks, strict=True))
        ]
    return kernels


def find_kernel(kernels: list[Kernel], number: int) -> Kernel:
    """Find a kernel by its number, from 1; 404 if there is none."""
    check_kernel_number(number, len(kernels))
    return kernels[number - 1]


def check_kernel_number(number: int, count: int) -> None:
    """Abort with 404 if conv1 has no kernel of this number."""
    if number > count:
        abort(404, f"conv1 has kernels 1 to {count}.")


def list_kernel_blocks(predictor: Predictor, kernels: list[Kernel]) -> list[KernelBlock]:
    """Group the kernels by GPU."""
    parts = split_towers(predictor.conv1, predictor.config.towers)
    return [
        KernelBlock(
            gpu=gpu,
            kernels=own,
            selectivity=float(np.mean([k.selectivity for k in own])),
            low_frequency=compute_low_frequency_share(parts[gpu - 1]),
            url=url_for("filters.gpu_picture", number=gpu, v=predictor.identity[:12]),
            width=KERNEL_STEP * max(k.column for k in own) + KERNEL_PIXELS,
            height=KERNEL_STEP * max(k.row for k in own) + KERNEL_PIXELS,
        )
        for gpu, own in group_by_gpu(kernels).items()
    ]


def group_by_gpu(kernels: list[Kernel]) -> dict[int, list[Kernel]]:
    """Group the kernels by GPU."""
    return {gpu: [k for k in kernels if k.gpu == gpu] for gpu in sorted({k.gpu for k in kernels})}


def compare_gpus(predictor: Predictor, kernels: list[Kernel]) -> SelectivityContrast | None:
    """Compare the two GPUs' colour selectivities, cached; None for a network of one tower."""
    values = [[k.selectivity for k in own] for own in group_by_gpu(kernels).values()]
    if len(values) != 2:
        return None
    return activations.get_activation_cache().get(
        ("contrast", predictor.identity), lambda: compare_selectivities(*values)
    )


def find_top_patches(number: int) -> KernelPatches | NotReady | None:
    """Find the patches that activate a kernel most.

    NotReady says what is missing; None means that the index is older than patches.
    """
    state = context.loader().get_state()
    if isinstance(state, LabelsOnly):
        return state.missing
    if isinstance(state, NotReady) or state.sample is None:
        return state if isinstance(state, NotReady) else None
    patches = list_patches(state.sample, number)
    return KernelPatches(
        patches=patches,
        images=find_images(context.sessions(), [patch.image for patch in patches]),
        sprite=url_for("filters.patches_picture", number=number, v=state.version.name),
        count=len(state.sample.ids),
        whole=state.sample.whole,
    )


def list_patches(sample: ImageSample, number: int) -> list[KernelPatch]:
    """List the stored patches of a kernel, strongest first, at most one per image."""
    stored, row = sample.patches, number - 1
    return [
        KernelPatch(
            image=int(image), response=float(value), row=int(place[0]), column=int(place[1])
        )
        for image, value, place in zip(
            stored.ids[row], stored.values[row], stored.places[row], strict=True
        )
    ]
