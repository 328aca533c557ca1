"""Makes weights from a folder of photographs."""
