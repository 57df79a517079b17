"""What is known of erasures below the domains: the ledger outside the database, its keys, and how it is replayed."""
