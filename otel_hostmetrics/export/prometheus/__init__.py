"""The scrape endpoint: a batch as a text page, and the HTTP server that serves it."""
