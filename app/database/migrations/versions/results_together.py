"""What is nearest by pixels, and results of images that were sent together."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "result", sa.Column("by_pixels", sa.JSON(), nullable=False, server_default=sa.text("'[]'"))
    )
    op.add_column("result", sa.Column("sampled", sa.Integer(), nullable=True))
    op.create_table(
        "together",
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("items", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_together"),
    )
    op.create_index("ix_together_created_at", "together", ["created_at"])


def downgrade() -> None:
    """Undo."""
    op.drop_table("together")
    op.drop_column("result", "sampled")
    op.drop_column("result", "by_pixels")
