"""What figures of every topic share: the arms' looks, axes and legends, measured sizes as marks."""
