"""The first tables: images and classes, index versions, results of uploads."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Apply."""
    create_images()
    create_index()
    create_results()


def create_images() -> None:
    """Data sets, their classes, their images."""
    op.create_table(
        "dataset",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("root", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_dataset"),
        sa.UniqueConstraint("root", name="uq_dataset_root"),
    )
    op.create_table(
        "class",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("folder", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_class"),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], name="fk_class_dataset_id_dataset"),
        sa.UniqueConstraint("dataset_id", "folder", name="uq_class_dataset_id_folder"),
    )
    op.create_table(
        "image",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("class_id", sa.Integer(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("format", sa.String(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_image"),
        sa.ForeignKeyConstraint(["class_id"], ["class.id"], name="fk_image_class_id_class"),
        sa.UniqueConstraint("class_id", "path", "sha256", name="uq_image_class_id_path_sha256"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_image_sha256", "image", ["sha256"])
    op.create_index("ix_image_split_class_id", "image", ["split", "class_id"])


def create_index() -> None:
    """Index versions and what they hold."""
    op.create_table(
        "index_version",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("weights", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("unreadable", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_index_version"),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["dataset.id"], name="fk_index_version_dataset_id_dataset"
        ),
        sa.UniqueConstraint("name", name="uq_index_version_name"),
    )
    create_members("index_image", "image", [])
    create_members("index_class", "class", [sa.Column("images", sa.Integer(), nullable=False)])


def create_members(table: str, member: str, more: list[sa.Column[int]]) -> None:
    """A table that says which images, or classes, an index version holds."""
    op.create_table(
        table,
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column(f"{member}_id", sa.Integer(), nullable=False),
        *more,
        sa.PrimaryKeyConstraint("version_id", f"{member}_id", name=f"pk_{table}"),
        sa.ForeignKeyConstraint(
            ["version_id"], ["index_version.id"], name=f"fk_{table}_version_id_index_version"
        ),
        sa.ForeignKeyConstraint(
            [f"{member}_id"], [f"{member}.id"], name=f"fk_{table}_{member}_id_{member}"
        ),
    )


def create_results() -> None:
    """Answers to uploads."""
    op.create_table(
        "result",
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("weights", sa.String(), nullable=False),
        sa.Column("index_version_id", sa.Integer(), nullable=False),
        sa.Column("top5", sa.JSON(), nullable=False),
        sa.Column("crops", sa.JSON(), nullable=False),
        sa.Column("neighbours", sa.JSON(), nullable=False),
        sa.Column("milliseconds", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_result"),
        sa.ForeignKeyConstraint(
            ["index_version_id"],
            ["index_version.id"],
            name="fk_result_index_version_id_index_version",
        ),
    )
    op.create_index("ix_result_created_at", "result", ["created_at"])


def downgrade() -> None:
    """Undo."""
    for table in ("result", "index_class", "index_image", "index_version", "image"):
        op.drop_table(table)
    op.drop_table("class")
    op.drop_table("dataset")
