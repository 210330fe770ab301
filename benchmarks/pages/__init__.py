"""Tables of results for the READMEs and the documentation."""
