"""Runs as data: configurations, their resolution, and the folder a run leaves behind."""
