"""Catalogues for the tests of both databases: a large class, and one of an earlier version."""

import numpy as np
from sqlalchemy import insert, select, text
from sqlalchemy.orm import Session

from app.config import Settings
from app.database.ingest import make_version_rows, rank_images
from app.database.session import (
    Sessions,
    downgrade_database,
    get_engine,
    read_session,
    session_factory,
    upgrade_database,
    write_session,
)
from app.database.tables import Class, Dataset, Image, IndexClass, IndexImage, IndexVersion, utc_now

LABELS = ("Élan", "eland", "tiger cat", "Tabby Cat", "ﬁddler crab", "Straße")


def enter_catalogue(sessions: Sessions, count: int) -> None:
    """Enter images of many equal sizes, their paths in another order than their ids."""
    draw = np.random.default_rng(1)
    with write_session(sessions) as session:
        session.add(Dataset(id=1, root="/photographs"))
        session.add(
            IndexVersion(
                id=1,
                name="v",
                dataset_id=1,
                weights="w",
                created_at=utc_now(),
                count=0,
                unreadable=0,
            )
        )
        session.flush()
        session.add_all(
            Class(id=n, dataset_id=1, folder=f"c{n}", label=label)
            for n, label in enumerate(LABELS, 1)
        )
        session.flush()
        names, sides = draw.permutation(count), draw.integers(1, 9, (count, 2)) * 100
        rows = [
            {
                **{"class_id": min(1 + n % 9, 6), "split": "train", "format": "JPEG", "bytes": 1},
                **{"path": f"train/{name:05}.jpg", "sha256": f"{n:064x}"},
                **{"width": width, "height": height},
            }
            for n, (name, (width, height)) in enumerate(
                zip(names.tolist(), sides.tolist(), strict=True)
            )
        ]
        session.execute(insert(Image), rows)
        held = [image for image in session.scalars(select(Image)) if image.id % 7]
        session.execute(insert(IndexImage), make_rows(held))
        for n in range(1, 7):
            count = sum(image.class_id == n for image in held)
            session.add(IndexClass(version_id=1, class_id=n, images=count))


def make_rows(held: list[Image]) -> list[dict[str, int]]:
    """The rows of a version's images, ranked in their classes."""
    ranked = rank_images(
        [image.id for image in held],
        [image.class_id for image in held],
        [image.path for image in held],
        [image.width * image.height for image in held],
    )
    return list(make_version_rows(1, ranked))


def enter_class(session: Session) -> None:
    """Enter a class of four images, of which a version of the sixth revision has three."""
    lines = [
        "INSERT INTO dataset (id, root) VALUES (1, '/photographs')",
        "INSERT INTO class (id, dataset_id, folder, label)"
        " VALUES (1, 1, 'c', 'c'), (2, 1, 'd', 'd')",
        "INSERT INTO index_version (id, name, dataset_id, weights, created_at, count, unreadable)"
        " VALUES (1, 'v', 1, 'w', '2026-01-01 00:00:00', 3, 0)",
        *(
            "INSERT INTO image (id, class_id, split, path, sha256, format, width, height, bytes)"
            f" VALUES ({image}, {class_}, 'train', '{path}', '{image}', 'JPEG', {side}, {side}, 1)"
            for image, class_, path, side in (
                (1, 1, "z", 60_000), (2, 1, "B", 7), (3, 1, "a", 70_000), (4, 1, "n", 9),
                (5, 2, "a", 1),
            )
        ),
        "INSERT INTO index_image (version_id, image_id) VALUES (1, 5), (1, 3), (1, 1), (1, 2)",
    ]  # fmt: skip
    for line in lines:
        session.execute(text(line))


def check_ranks_of_earlier_versions(settings: Settings) -> None:
    """The images of `enter_class` are ranked by an upgrade, and listed again after undoing it."""
    sessions = session_factory(settings)
    downgrade_database(settings, "0006")
    with write_session(sessions) as session:
        enter_class(session)
    upgrade_database(settings)
    with read_session(sessions) as session:
        found = session.scalars(select(IndexImage).order_by(IndexImage.image_id)).all()
        ranks = [(i.image_id, i.class_id, i.by_path, i.by_pixels, i.by_age) for i in found]
    assert ranks == [(1, 1, 3, 2, 1), (2, 1, 1, 1, 2), (3, 1, 2, 3, 3), (5, 2, 1, 1, 1)]
    downgrade_database(settings, "0006")
    with read_session(sessions) as session:
        assert session.scalars(text("SELECT image_id FROM index_image ORDER BY 1")).all() == [
            *(1, 2, 3, 5)
        ]
    upgrade_database(settings)
    get_engine(sessions).dispose()
