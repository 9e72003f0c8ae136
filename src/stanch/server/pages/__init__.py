"""The pages of the server: rendered from the store's history, with little script."""
