"""The command line. Only this package knows click and rich."""
