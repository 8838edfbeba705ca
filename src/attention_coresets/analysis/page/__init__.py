"""A page to look at in a browser: one file with its data and all that draws its charts, and no outside address."""
