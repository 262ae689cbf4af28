"""From the graph to scheduled loop nests: fusion, layout, contraction analysis, schedules, code generation.

Device-independent up to the schedule; the printers of machine-level text live beside what they print for.
"""
