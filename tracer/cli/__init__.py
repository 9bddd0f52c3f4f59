"""The click commands. Nothing else in the package knows click."""
