"""One module per command; each has the click command in the variable `command`."""
