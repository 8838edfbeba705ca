"""What the measured table says: sizes, fits and their intervals. Reads results only; needs numpy, scipy and pandas."""
