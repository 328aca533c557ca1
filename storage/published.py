"""What the paper's tables say, and what the log of the source published in 2025 says beside it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A row of Table 1 or 2. Errors in per cent; None: not in the table.

    experiment, arm: whose figures of this project stand beside it; empty: none.
    """

    model: str
    errors: tuple[float | None, ...]
    experiment: str = ""
    arm: str = ""


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """A table of the paper."""

    name: str
    data: str
    headings: tuple[str, ...]
    rows: tuple[TableRow, ...]


TABLE_1 = PublishedTable(
    name="Table 1",
    data="ILSVRC-2010, test set",
    headings=("top-1", "top-5"),
    rows=(
        TableRow(model="Sparse coding", errors=(47.1, 28.2)),
        TableRow(
            model="SIFT + FVs",
            errors=(45.7, 25.7),
            experiment="baseline",
            arm="SIFT + Fisher vectors",
        ),
        TableRow(model="CNN", errors=(37.5, 17.0), experiment="baseline", arm="the network"),
    ),
)
TABLE_2 = PublishedTable(
    name="Table 2",
    data="ILSVRC-2012, validation and test set",
    headings=("top-1, validation", "top-5, validation", "top-5, test"),
    rows=(
        TableRow(
            model="SIFT + FVs",
            errors=(None, None, 26.2),
            experiment="baseline",
            arm="SIFT + Fisher vectors",
        ),
        TableRow(
            model="1 CNN", errors=(40.7, 18.2, None), experiment="ensemble", arm="one network"
        ),
        TableRow(
            model="5 CNNs", errors=(38.1, 16.4, 16.4), experiment="ensemble", arm="five averaged"
        ),
        TableRow(
            model="1 CNN*",
            errors=(39.0, 16.6, None),
            experiment="chain",
            arm="pretrained, with conv6",
        ),
        TableRow(model="7 CNNs*", errors=(36.7, 15.4, 15.3)),
    ),
)


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """A run of 2012 as its log has it, beside the paper. Errors in per cent, top-1 and top-5.

    paper: the paper's two errors, or what it says of the difference, in words.
    """

    network: str
    what: str
    errors: tuple[float, float]
    paper: str


LOGGED = (
    LoggedRun(
        network="145",
        what="the paper's network; ILSVRC-2010, test, ten crops",
        errors=(37.47, 17.00),
        paper="37.5, 17.0",
    ),
    LoggedRun(
        network="145",
        what="the same by the centre crop",
        errors=(39.02, 18.30),
        paper="39.0, 18.3",
    ),
    LoggedRun(
        network="145-half",
        what="one column; ILSVRC-2010, test, ten crops",
        errors=(39.17, 18.23),
        paper="1.7 and 1.2 points above 145",
    ),
    LoggedRun(
        network="145",
        what="ILSVRC-2012, validation, ten crops",
        errors=(40.66, 18.21),
        paper="40.7, 18.2",
    ),
    LoggedRun(
        network="145",
        what="the same, trained on to epoch 135",
        errors=(40.25, 17.99),
        paper="–",
    ),
    LoggedRun(
        network="147",
        what="pooling that does not overlap; ILSVRC-2012, validation",
        errors=(41.06, 18.51),
        paper="0.4 and 0.3 points above 145",
    ),
    LoggedRun(
        network="148",
        what="no normalisation; ILSVRC-2012, validation",
        errors=(42.03, 19.36),
        paper="1.4 and 1.2 points above 145",
    ),
    LoggedRun(
        network="150",
        what="columns apart until fc6; ILSVRC-2012, validation",
        errors=(41.83, 19.33),
        paper="–",
    ),
    LoggedRun(
        network="167",
        what="exponential rate, no LRN after conv2; ILSVRC-2012, validation",
        errors=(40.49, 18.12),
        paper="–",
    ),
    LoggedRun(
        network="146",
        what="conv6, pretrained on the 2011 release",
        errors=(38.99, 16.62),
        paper="39.0, 16.6",
    ),
    LoggedRun(
        network="146",
        what="conv6, pretrained on the 2009 release",
        errors=(39.10, 16.88),
        paper="–",
    ),
)
"""The logs in the source that the Computer History Museum published (computerhistory,
AlexNet-Source-Code, commit 2f8b81f)."""
