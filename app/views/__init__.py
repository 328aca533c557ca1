"""One module a page, and the API."""
