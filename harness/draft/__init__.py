"""A matrix drafted for two models and a training set: what fits, with the reason of each choice beside it."""
