"""The paper, section by section, with what was measured here."""
