"""The 4096 features of every training image in FAISS. The only room that imports faiss."""
