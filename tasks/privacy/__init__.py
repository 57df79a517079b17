"""What the owner of data protection is told: a report a month, and exports that are out of the ordinary."""
