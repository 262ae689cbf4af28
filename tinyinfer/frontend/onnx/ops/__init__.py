"""One module for each family of operators: the import functions that fill the op table.

What several families are built of is in `blocks`; the walk over a model is in `importer` and `trace`.
"""
