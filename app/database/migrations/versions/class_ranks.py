"""Each image's ranks in its class, so that every page of a class is read by an index."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

RANKS = ("by_path", "by_pixels", "by_age")
TABLE = "index_image"


def upgrade() -> None:
    """Apply."""
    # Not by altering the table: SQLite adds no column that may not be null and has no default.
    op.execute(f"CREATE TEMPORARY TABLE ranked AS {write_ranking()}")
    op.drop_table(TABLE)
    create_index_image("class_id", *RANKS)
    op.execute(f"INSERT INTO {TABLE} SELECT * FROM ranked")
    op.execute("DROP TABLE ranked")
    for rank in RANKS:
        columns = ["version_id", "class_id", rank]
        op.create_index(f"ix_{TABLE}_{'_'.join(columns)}", TABLE, columns)


def write_ranking() -> str:
    """Write the query of all versions' images and their ranks."""
    # By code points, as SQLite compares anyway.
    path = "path" if op.get_bind().dialect.name == "sqlite" else 'path COLLATE "C"'
    orders = {
        "by_path": f"{path}, image.id",
        "by_pixels": f"CAST(width AS BIGINT) * height, {path}, image.id",
        "by_age": "image.id",
    }
    ranks = ", ".join(
        f"row_number() OVER (PARTITION BY version_id, class_id ORDER BY {order}) AS {name}"
        for name, order in orders.items()
    )
    return (
        f"SELECT version_id, image_id, class_id, {ranks} FROM {TABLE} "
        "JOIN image ON image.id = image_id ORDER BY version_id, image_id"
    )


def create_index_image(*columns: str) -> None:
    """Create the table of the images of versions, with more columns than their two keys."""
    op.create_table(
        TABLE,
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in columns),
        sa.PrimaryKeyConstraint("version_id", "image_id", name=f"pk_{TABLE}"),
        sa.ForeignKeyConstraint(
            ["version_id"], ["index_version.id"], name=f"fk_{TABLE}_version_id_index_version"
        ),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=f"fk_{TABLE}_image_id_image"),
        *(
            sa.ForeignKeyConstraint(["class_id"], ["class.id"], name=f"fk_{TABLE}_class_id_class")
            for _ in columns[:1]
        ),
    )


def downgrade() -> None:
    """Undo."""
    op.execute(
        f"CREATE TEMPORARY TABLE listed AS SELECT version_id, image_id FROM {TABLE} "
        "ORDER BY version_id, image_id"
    )
    op.drop_table(TABLE)
    create_index_image()
    op.execute(f"INSERT INTO {TABLE} SELECT * FROM listed")
    op.execute("DROP TABLE listed")
