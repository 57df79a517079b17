"""Backups, the proof that they restore, and the way back."""
