"""The order and the fate of a run's jobs, wherever they run: schedule, tries, requests to stop, and who hears of it."""
