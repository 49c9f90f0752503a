"""The mathematics: schedules, processes, predictions, losses, samplers, likelihood, editing. It knows no network."""
