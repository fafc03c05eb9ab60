"""The side of a process: what it holds, and how it stays in step."""
