"""How sure a result is."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Apply."""
    op.add_column("result", sa.Column("sureness", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("result", "sureness")
