"""The paper's network and its family: layers, towers, and what can vary."""
