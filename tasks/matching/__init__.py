"""Whether two records are one: keys that make spellings alike, scores that explain themselves, and candidates."""
