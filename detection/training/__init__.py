"""What every method's training shares: the model's and the stage's contracts, schedules, seeds."""
