"""Rules over the stored data, the incidents they open, duplicates, and who is told."""
