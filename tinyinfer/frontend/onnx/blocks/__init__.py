"""What operators are built of: attention, sampling, sorting, running sums, trees, loops.

No op is registered here.
"""
