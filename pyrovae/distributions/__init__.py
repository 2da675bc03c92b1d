"""Distributions that torch and Pyro lack, or evaluate more slowly than need be."""
