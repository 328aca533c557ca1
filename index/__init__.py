"""Nearest neighbours by 4096-d fc7 features. The only package that imports faiss."""
