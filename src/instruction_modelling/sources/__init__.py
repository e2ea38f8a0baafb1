"""Published data: fetched and converted."""
