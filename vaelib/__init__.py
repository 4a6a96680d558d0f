"""Five variational autoencoders on a music collection; the notebooks in `notebooks/` explain every part of it."""
