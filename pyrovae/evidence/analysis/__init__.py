"""What evidence says about a model: bounds from both sides, convergence, where the nats go, parts
of x.
"""
