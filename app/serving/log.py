"""What the log may say: no token that opens a result, and one line for each message."""

import logging
import re

TOKEN_IN_PATH = re.compile(
    r"((?:results/(?:together/)?|uploads/|[?&]of=))[A-Za-z0-9_-]{22}(?![A-Za-z0-9_-])"
)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Characters that end a line or move a terminal's cursor."""


def make_discreet(record: logging.LogRecord) -> bool:
    """Logging filter: replace tokens, so that the log gives no access to uploads, and escape
    control characters, so that an address cannot forge a line."""
    record.msg, record.args = escape_controls(redact_text(record.getMessage())), ()
    if record.exc_info:
        record.exc_text = redact_text(logging.Formatter().formatException(record.exc_info))
    return True


def escape_controls(text: str) -> str:
    """Write control characters as Python does, such as \\n."""
    return CONTROL.sub(lambda found: repr(found.group())[1:-1], text)


def redact_text(text: str) -> str:
    """Replace each token in an address or a path by an ellipsis."""
    return TOKEN_IN_PATH.sub(r"\1…", text)
