"""Whether the runs run: what is late, missing, dead or idle, who is told, and when it is over."""
