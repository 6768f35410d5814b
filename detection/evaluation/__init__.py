"""What a model is worth on a data set: one evaluator a task and protocol."""
