"""Basics of a daemon: threads, timers, deadlines, forks, signals, logs, watched files."""
