"""What a person asks of a snapshot: tables, SQL, reports."""
