"""Who is reminded of what, when and by whom; from the plan to the server's answer."""
