"""What proposes candidates: the kinds of FAISS index, and Milvus. Only here both are known."""
