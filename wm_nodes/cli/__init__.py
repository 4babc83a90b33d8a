"""The `wm` command: one file per subcommand, imported only when it is run."""
