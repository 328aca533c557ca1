"""ImageNet's images as they are distributed: in one folder, their classes in a file or the names.

Kaggle's archive holds `ILSVRC/Data/CLS-LOC/train/<class>/*`, a folder `val` of 50,000 images, and
their classes in `LOC_val_solution.csv`. The archives of Hugging Face hold images whose names end in
their class, such as `ILSVRC2012_val_00000001_n01440764.JPEG`.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

KAGGLE_FOLDER = "ILSVRC/Data/CLS-LOC"
"""Where Kaggle's archive holds train and val."""
SOLUTION_FILE = "LOC_val_solution.csv"
SOLUTION_COLUMNS = ["ImageId", "PredictionString"]
CLASS_IN_NAME = re.compile(r"_(n\d{8})\.\w+$")
"""The class at the end of a file's name: a WordNet id."""


class UnknownClassError(ValueError):
    """An image of which nothing says what its class is."""


def find_split_folder(root: Path) -> Path:
    """Return the folder that holds train and val: the root, or that of Kaggle's archive below."""
    below = root / KAGGLE_FOLDER
    return below if below.is_dir() and not (root / "train").exists() else root


def group_by_class(place: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """Group the images that lie directly in a folder by their class; both sorted.

    Raises UnknownClassError if the class of one is neither in its name nor in Kaggle's solution
    file, which lies beside the folder or up to four folders above.
    """
    solution, groups = None, dict[str, list[str]]()
    for name in sorted(names):
        if found := CLASS_IN_NAME.search(name):
            wnid = found[1]
        else:
            solution = read_solution(place) if solution is None else solution
            wnid = solution.get(Path(name).stem, "")
        if not wnid:
            raise UnknownClassError(
                f"nothing says which class {place / name} has: it lies in no class folder, its "
                "name does not end in one, as in ILSVRC2012_val_00000001_n01440764.JPEG, and "
                f"{'there is no' if not solution else 'it is not in'} {SOLUTION_FILE}"
            )
        groups.setdefault(wnid, []).append(name)
    return dict(sorted(groups.items()))


def read_solution(place: Path) -> dict[str, str]:
    """Read Kaggle's solution file: the class of each image, by its name without suffix.

    Empty if there is none. Raises UnknownClassError if the file cannot be read.
    """
    files = [folder / SOLUTION_FILE for folder in (place, *place.parents[:4])]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.DictReader(lines)
            if rows.fieldnames != SOLUTION_COLUMNS:
                raise UnknownClassError(
                    f"{file} is not Kaggle's: its columns are not {', '.join(SOLUTION_COLUMNS)}"
                )
            # "n01751748 111 108 233 175 n01751748 …": the class before each box, all the same.
            return {
                row["ImageId"]: (row["PredictionString"] or "").partition(" ")[0] for row in rows
            }
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnknownClassError(f"{file} cannot be read: {error}") from error
