"""Engines, which propose candidates: FAISS's kinds of index, binary codes, and Milvus."""
