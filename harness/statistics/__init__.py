"""Intervals, paired tests, variance over seeds and items, ranking: functions of arrays."""
