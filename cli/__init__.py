"""The command `tinyinfer`: one module per command in `commands`, each a thin shell over the Python API."""
