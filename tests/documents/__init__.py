"""README.md and the pages below docs/: their lines, their sentences, and where their links lead."""
