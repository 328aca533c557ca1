"""Figure 4 of the paper: the nearest photographs by the features of fc7, and by pixels.

`marimo edit notebooks/figure_4.py` opens it; `python notebooks/figure_4.py` only runs it.
"""

import marimo

app = marimo.App(width="medium", app_title="Figure 4: neighbours by fc7")


with app.setup:
    from pathlib import Path

    import marimo as mo
    import numpy as np
    from PIL import Image

    from index.building.file_list import FILE_LIST, read_file_list
    from index.sample import make_thumbnail
    from index.store import open_version, read_current_version
    from model import load
    from model.dataset.folder import scan_folder
    from storage.pretrained import SHIPPED
    from training.dataset.demo import PICTURES, draw_split_crops

    SHOWN = 6  # neighbours of each photograph


@app.cell
def _():
    mo.md(r"""
    # Figure 4: neighbours by fc7

    Ask the network not for a label, but for its last hidden layer: 4096 numbers, fc7, from which
    the labels are computed. Two photographs whose numbers are close look alike *to the network*.
    The paper's Figure 4 shows that this is another likeness than that of pixels: "at the pixel
    level, the retrieved training images are generally not close in L2 to the query images in the
    first column. For example, the retrieved dogs and elephants appear in a variety of poses."

    The first column below is a validation photograph. Beside it stand its nearest training
    photographs by the Euclidean distance of fc7, and under them those nearest by pixels.
    """)
    return


@app.cell
def _():
    # Any weights file of this project: put the path of your own here.
    weights = SHIPPED.weights
    # Your photographs, as train/<class>/* and val/<class>/*: Path("path/to/photographs"). With None
    # they are cut from pictures that scikit-image ships.
    folder = None
    # An index of these weights, Path("var/index"): then its photographs are searched, however many
    # they are. None: the photographs above, whose features are computed here.
    index_root = None
    # Photographs of each class to search in, and to ask about.
    per_class, queries_per_class = 6, 1
    return folder, index_root, per_class, queries_per_class, weights


@app.cell
def _(weights):
    predictor = load(weights, device="cpu")
    return (predictor,)


@app.cell
def _(predictor):
    def read_demo(split, count):
        """Read the first crops of each picture: uint8 [N, 256, 256, 3], and their labels."""
        squares, labels = [], []
        for picture in PICTURES:
            image = Image.fromarray(picture.load()).convert("RGB")
            for crop in draw_split_crops(picture, image.size)[split][:count]:
                squares.append(predictor.make_square(image.crop(crop.box())))
                labels.append(picture.label)
        return np.stack(squares), labels

    def read_folder(photographs, split, count):
        """Read the first photographs of each class of a folder, as `read_demo` does."""
        squares, labels = [], []
        for number, name in enumerate(photographs.classes):
            of_class = [one for one in getattr(photographs, split) if one.class_index == number]
            for one in of_class[:count]:
                squares.append(predictor.read_square(photographs.root / one.path))
                labels.append(name.label)
        return np.stack(squares), labels

    return read_demo, read_folder


@app.cell
def _(folder, index_root, per_class, predictor, queries_per_class, read_demo, read_folder):
    index = version = None
    if index_root is not None:
        version = read_current_version(index_root)
        if version is None:
            raise SystemExit(f"There is no index in {index_root}: run `flask index build`")
        index = open_version(index_root, version)
        if index.manifest.weights != predictor.identity:
            raise SystemExit("The index was built with other weights: set `weights` to those")
    place = Path(index.manifest.data) if index else folder
    if place is None:
        gallery, queries = read_demo("train", per_class), read_demo("val", queries_per_class)
    else:
        found = scan_folder(place, val_may_lack_classes=True)
        gallery = read_folder(found, "train", per_class)
        queries = read_folder(found, "val", queries_per_class)
    return gallery, index, place, queries, version


@app.cell
def _(gallery, predictor, queries):
    def compute_features(squares):
        """Compute fc7 a few at a time: uint8 [N, 256, 256, 3] → float32 [N, 4096]."""
        parts = range(0, len(squares), 8)
        return np.concatenate([predictor.extract_features(squares[n : n + 8]) for n in parts])

    def compute_distances(first, second):
        """Compute Euclidean distances: [N, F], [M, F] → float64 [N, M]."""
        first, second = first.astype(np.float64), second.astype(np.float64)
        squared = np.square(first).sum(1)[:, None] + np.square(second).sum(1) - 2 * first @ second.T
        return np.sqrt(np.maximum(squared, 0))

    def shrink(squares):
        """Shrink to 32 × 32 pixels: uint8 [N, 256, 256, 3] → [N, 3072]."""
        return np.stack([make_thumbnail(one) for one in squares]).reshape(len(squares), -1)

    asked = compute_features(queries[0])
    by_features = compute_distances(asked, compute_features(gallery[0]))
    by_pixels = compute_distances(shrink(queries[0]), shrink(gallery[0]))
    return asked, by_features, by_pixels


@app.cell
def _(asked, by_features, gallery, index, index_root, place, predictor, version):
    def take_nearest(distances):
        """Return each query's nearest squares of the gallery, with their labels."""
        squares, labels = gallery
        return [
            [(squares[n], labels[n]) for n in np.argsort(row, kind="stable")[:SHOWN]]
            for row in distances
        ]

    def search_index():
        """Return each query's nearest photographs in the index, labelled by their folders."""
        entries, rows = read_file_list(index_root / version / FILE_LIST)
        paths = {int(row): entry.path for entry, row in zip(entries, rows, strict=True)}
        return [
            [
                (predictor.read_square(place / path), path.split("/")[-2])
                for path in (paths[index.id_map.find_row(int(image))] for image in images)
            ]
            for images in index.search(asked, SHOWN).ids
        ]

    near = search_index() if index else take_nearest(by_features)
    return near, take_nearest


@app.cell
def _(queries):
    labels = list(dict.fromkeys(queries[1]))
    chosen = mo.ui.multiselect(
        labels, value=labels[1::3][:4] or labels, label="classes to ask about"
    )
    chosen
    return (chosen,)


@app.cell
def _(by_pixels, chosen, near, queries, take_nearest):
    def draw_row(squares, side=88, gap=6):
        """Draw squares side by side, with a gap after the first."""
        row = Image.new("RGBA", (len(squares) * (side + gap) + 10, side), (0, 0, 0, 0))
        for number, square in enumerate(squares):
            small = Image.fromarray(square).resize((side, side))
            row.paste(small, (number * (side + gap) + 10 * (number > 0), 0))
        return row

    pixels = take_nearest(by_pixels)
    _rows = []
    for _number, (_square, _label) in enumerate(zip(*queries, strict=True)):
        if _label in chosen.value:
            _rows += [
                mo.md(f"**{_label}**: by fc7, and below by pixels"),
                draw_row([_square, *(one for one, _ in near[_number])]),
                draw_row([_square, *(one for one, _ in pixels[_number])]),
            ]
    mo.vstack(_rows)
    return (pixels,)


@app.cell
def _(index, near, pixels, queries):
    def count_same(found):
        """Return the share of neighbours that have their query's label."""
        pairs = zip(queries[1], found, strict=True)
        same = [label == own for own, row in pairs for _, label in row]
        return sum(same) / len(same)

    by_fc7 = count_same(near)
    mo.md(f"""
    ## How often is it the same kind of thing?

    Of the {SHOWN} nearest of all {len(queries[1])} photographs asked about, **{by_fc7:.0%}** by
    fc7 and **{count_same(pixels):.0%}** by pixels have the label of their query{
        ", where the folder is called as the class" if index else ""
    }.

    ## To try

    - Set `folder` to photographs of your own. The network need not know their classes: fc7 tells
      apart more than it has names for.
    - Set `index_root` to search an index instead: `flask index build` makes one.
    - `flask index build` and the page *Figure 4* make the whole figure of your validation images.
    """)
    return (by_fc7,)


if __name__ == "__main__":
    app.run()
