"""Whose upload it is: the browser that sent it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Apply."""
    for table in ("result", "together"):
        op.add_column(table, sa.Column("owner", sa.String(), nullable=True))
        op.create_index(f"ix_{table}_owner", table, ["owner", "created_at"])


def downgrade() -> None:
    """Undo."""
    for table in ("result", "together"):
        op.drop_index(f"ix_{table}_owner", table)
        op.drop_column(table, "owner")
