"""The HTTP API and the page: a client of the topics like any other, with a view of the results that can be rebuilt."""
