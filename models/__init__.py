"""Programs on the engine's public names: networks, their training on MNIST, and what is kept of a run.

In reading order: `mlp` (a network), `networks` (all of them, one row each), `losses`, `data` (MNIST, batches),
`settings` (what a run is told), `training` (the run), `files` and `checkpoint` (what survives a crash), `plots` and
`outputs` (what a run leaves), `cli`. Run `python -m models train`, from a checkout.
"""
