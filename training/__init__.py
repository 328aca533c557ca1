"""Train and evaluate networks on a folder of photographs."""
