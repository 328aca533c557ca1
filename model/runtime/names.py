"""The runtimes' names, as ALEXNET_RUNTIME has them; imports nothing, since settings need them."""

AUTO, TORCH = "auto", "torch"
OPENVINO_PRECISIONS = {"openvino-bf16": "bf16", "openvino-f32": "f32"}
"""The precisions that OpenVINO is tried with, the fastest first."""
RUNTIMES = (AUTO, TORCH, *OPENVINO_PRECISIONS)
"""What ALEXNET_RUNTIME may be."""
