"""Runs over recordings: replay, controls, live, demo, reports, the command line."""
