"""Jobs: requests whose results are fetched later."""
