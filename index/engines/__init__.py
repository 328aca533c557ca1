"""Engines that propose candidate rows: FAISS's kinds of index, binary codes, and Milvus."""
