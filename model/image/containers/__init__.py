"""The containers of JPEG, PNG and WebP, walked before Pillow sees them, and stripped.

What a file holds beside its pixels (text, profiles, previews, further pictures) is unbounded, costs
Pillow time and memory, and is used nowhere here. A module per format walks the file's parts, a
bounded number of them, and returns a `Container`: a small file with the pixels alone.
"""
