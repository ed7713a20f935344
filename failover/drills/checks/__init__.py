"""The checks, a noun each. A check is a function from the evidence to its findings; none knows another."""
