"""Language models: capture of their caches, real heads, and models that run on coresets (serving/)."""
