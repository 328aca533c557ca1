"""A home with the paper's whole network, for the pages whose tests know its shapes."""

import pytest


@pytest.fixture(scope="session")
def settings(paper_settings):
    """A home with the paper's whole network: these tests know its shapes."""
    return paper_settings


@pytest.fixture(scope="session")
def app(settings, open_app):
    """The application of that home."""
    return open_app(settings)


@pytest.fixture(scope="session")
def uploader(app, make_uploader):
    """A client of that application that has classified cat.jpg."""
    return make_uploader(app)
