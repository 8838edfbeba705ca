"""One cell of a sweep, where it is kept, and the sweep itself. Needs the `study` extra, but for `cell`."""
