"""What a network has learned, and what it computes, in pictures and numbers."""
