"""Re-running past periods, window by window."""
