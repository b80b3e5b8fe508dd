"""Programs on the engine's public names: networks, their training on MNIST, and what is kept of a run.

In reading order: `mlp`, `autoencoder` (networks), `networks`, `losses`, `optimizers` (what there is to choose, one row
each), `data` (MNIST, batches), `settings` (what a run is told), `training`, `pretraining` (the run), `files` and
`checkpoint` (what survives a crash), `plots` and `outputs` (what a run leaves), `cli`; `papers` (five papers reproduced).
Run `python -m models train`, from a checkout.
"""
