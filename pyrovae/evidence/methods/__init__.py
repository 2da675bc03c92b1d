"""Methods that estimate log p(x)."""
