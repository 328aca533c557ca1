"""Log lines without the tokens by which results are found: who reads a log sees no upload by it."""

import logging
import re

TOKEN_IN_PATH = re.compile(
    r"((?:results/(?:together/)?|uploads/|[?&]of=))[A-Za-z0-9_-]{22}(?![A-Za-z0-9_-])"
)


def redact_tokens(record: logging.LogRecord) -> bool:
    """Take tokens out of what a logger is about to write: a filter that lets everything pass."""
    record.msg, record.args = redact_text(record.getMessage()), ()
    if record.exc_info:
        record.exc_text = redact_text(logging.Formatter().formatException(record.exc_info))
    return True


def redact_text(text: str) -> str:
    """The text with a dot for each token in an address or a path."""
    return TOKEN_IN_PATH.sub(r"\1…", text)
