"""What a reader sees: notebooks in a real JupyterLab and reports from disk, in a real browser."""
