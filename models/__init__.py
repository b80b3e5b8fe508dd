"""Programs on the engine's public names: a multilayer perceptron, its training on MNIST, and what is kept of a run.

In reading order: `mlp` (the network), `losses`, `data` (MNIST, batches), `settings` (what a run is told), `training`
(the run), `files` and `checkpoint` (what survives a crash), `plots` and `outputs` (what a run leaves), `cli`.
Run `python -m models train`, from a checkout.
"""
