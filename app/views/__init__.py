"""The HTML pages, one module or folder per page."""
