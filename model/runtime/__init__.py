"""What computes a network's predictions: torch, or OpenVINO where that measures faster."""
