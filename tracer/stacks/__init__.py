"""From addresses to frames."""
