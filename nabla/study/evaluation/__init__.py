"""Measuring methods: grading, statistics and comparison on the same problems."""
