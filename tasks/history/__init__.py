"""The history that the database writes: naming who acts, sealing it, verifying it, showing it, letting values go."""
