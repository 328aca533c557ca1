"""Corrections of images that the review found wrong."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "correction",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("class_id", sa.Integer(), nullable=True),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("image_id", name="pk_correction"),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name="fk_correction_image_id_image"),
        sa.ForeignKeyConstraint(["class_id"], ["class.id"], name="fk_correction_class_id_class"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("correction")
