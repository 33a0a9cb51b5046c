"""The command `wildmerge`: one module a subcommand, nothing heavy imported before it runs."""
