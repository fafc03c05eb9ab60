"""What any daemon stands on: threads, timers, deadlines, forks, signals, logs, watched files."""
