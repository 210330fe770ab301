"""The playground: the four tasks in a browser, on a page that Streamlit serves. Needs the extra "playground"."""
