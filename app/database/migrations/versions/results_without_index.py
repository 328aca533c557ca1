"""Results of images that were classified before there was an index."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Apply."""
    set_nullable(nullable=True)


def downgrade() -> None:
    """Undo, without the results that need it; their pictures are deleted in time."""
    op.execute("DELETE FROM result WHERE index_version_id IS NULL")
    set_nullable(nullable=False)


def set_nullable(*, nullable: bool) -> None:
    """Say whether a result may be without an index version."""
    with op.batch_alter_table("result") as batch:
        batch.alter_column("index_version_id", existing_type=sa.Integer(), nullable=nullable)
