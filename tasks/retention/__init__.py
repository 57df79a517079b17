"""Letting go of data whose purpose has ended, and the evidence of it."""
