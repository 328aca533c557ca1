"""The layout and formats of ALEXNET_HOME, defined once for those that write and read it."""
