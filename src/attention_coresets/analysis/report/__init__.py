"""What puts the topics together: paper_repro.md, the blocks of other pages, the figures."""
