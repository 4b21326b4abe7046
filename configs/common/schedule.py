"""The length of a training and its learning rate over time."""

schedule = dict(
    # Passes over the training set; gives the number of steps where train.max_iter is None.
    epochs=24,
    # Steps of linear warm-up, and the factor on the learning rate at the first one.
    warmup_iters=500,
    warmup_factor=1 / 3,
    # Factor on the learning rate at the end of the cosine.
    end_factor=1e-3,
    # Batch that optimizer.lr is meant for: lanes of all processes together. See train.auto_scale.
    lr_batch=16,
)
