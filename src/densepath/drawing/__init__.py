"""Pictures by matplotlib: text as it stands, fonts that have it, and no failure that spreads."""
