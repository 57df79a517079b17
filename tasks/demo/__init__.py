"""The demo company: made-up customers and a made-up ledger, the same bytes every time."""
