"""The bodies of the `kontor` commands, one module per subject; flows/cli.py puts them together.

Nothing heavy is imported at the top of these modules: a command loads what it needs when it runs, and only commands
that run flows load Prefect, after its settings are in the environment.
"""
