"""The verbs of the `pagemesh` command, one file for each noun."""
