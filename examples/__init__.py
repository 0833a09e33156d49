"""Worked examples for trinas, each a folder that runs as a script and as a module."""
