"""Capture of Pyro programs as graphs: what a graph freezes, how it is lowered, compiled and replayed."""
