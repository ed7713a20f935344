"""Drills: faults injected on purpose, a workload that watches, a checker that judges, a report."""
