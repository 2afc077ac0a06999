"""What programs import: events, recordings and snapshots, through the broker."""
